"""The table of docs/reliability.md: what was injected, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reliability.soak import WATCHED

_HEAD = ("what happened", "times", "same result", "said in a line", "results changed", "crashes")


def table(results: Mapping[str, Any]) -> str:
    """Lay out the results of `torture` in Markdown.

    Args:
      results: as it writes them, with `inputs` where these were tried.
    """
    rows = [_row(section) for section in results["sections"]]
    total = [sum(section[kind] for section in results["sections"]) for kind in _KINDS]
    injected = total[0] + total[1] + total[2] + total[3]
    rows.append([f"**{text}**" for text in ("all", f"{injected:,}", *map(_number, total))])
    parts = [_markdown(_HEAD, rows)]
    if "inputs" in results:
        parts.append(_inputs(results["inputs"]))
    if "soak" in results:
        parts.append(_soak(results["soak"]))
    machine = results["machine"]
    parts.append(
        f"{results['minutes']:.0f} minutes on {machine['cores']} cores of {machine['cpu']}; "
        f"Python {results['versions']['python']}, JAX {results['versions']['jax']}."
    )
    return "\n\n".join(parts)


_KINDS = ("same", "said", "changed", "crashed")


def _row(section: Mapping[str, Any]) -> list[str]:
    counts = [section[kind] for kind in _KINDS]
    return [section["name"], f"{sum(counts):,}", *map(_number, counts)]


def _number(count: int) -> str:
    return f"{count:,}"


def _inputs(inputs: Mapping[str, Any]) -> str:
    names = ("tried", "read", "refused", "crashed")
    readers = inputs["readers"]
    rows = [[name, *(_number(found[n]) for n in names)] for name, found in readers.items()]
    total = [sum(found[n] for found in readers.values()) for n in names]
    rows.append([f"**{text}**" for text in ("all", *map(_number, total))])
    return _markdown(("bad inputs", "tried", "read", "refused in a line", "crashes"), rows)


def _soak(soak: Mapping[str, Any]) -> str:
    rows = [
        [about, *(f"{soak['fifths'][name][part]:,.1f}" for part in ("first", "last"))]
        for name, about in WATCHED.items()
    ]
    epochs = f"{soak['epochs']:,} epochs with a folder"
    picture = "![what a long run holds](../benchmarks/results/reliability/soak.png)"
    return _markdown((epochs, "first fifth", "last fifth"), rows) + f"\n\n{picture}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

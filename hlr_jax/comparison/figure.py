"""Draw a comparison: means with their intervals, and differences with theirs."""

import pathlib
import textwrap
from typing import Any

from hlr_jax import files
from hlr_jax.comparison.result import LEVEL, Comparison
from hlr_jax.comparison.words import metric_name
from hlr_jax.errors import InputError

try:
    from matplotlib.figure import Figure
except ImportError:
    raise InputError("--figure needs matplotlib: pip install 'hlr_jax[sweep]'") from None

_COLOURS = {"run": "C0", "baseline": "C7"}
_NAME_WIDTH = 28


def draw(path: pathlib.Path, comparison: Comparison) -> None:
    """Draw a row of two panels for each metric: means, and differences to the reference."""
    names = [entry.name for entry in comparison.entries]
    metrics = comparison.plan.metrics
    tests = len(comparison.pairs) // len(metrics)
    height = 1.2 + len(metrics) * (0.8 + 0.42 * max(len(names), tests))
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(len(metrics), 2, squeeze=False)
    for (means, differences), metric in zip(panels, metrics, strict=True):
        _draw_means(means, comparison, metric)
        _draw_differences(differences, comparison, metric)
    users = comparison.entries[0].users(metrics[0])
    figure.suptitle(f"{comparison.dataset}, {comparison.plan.split}, {users:,} users")
    figure.supxlabel(
        "bars: 95 % over users; filled differences: p < .05 after Holm's correction",
        fontsize="small",
    )
    with files.replacing(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:], dpi=130)


def _draw_means(panel: Any, comparison: Comparison, metric: str) -> None:
    for place, entry in enumerate(comparison.entries):
        low, high = entry.intervals[metric]
        mean = entry.means[metric]
        panel.errorbar(
            mean,
            place,
            xerr=[[mean - low], [high - mean]],
            fmt="o",
            capsize=3,
            color=_COLOURS[entry.kind],
        )
    _label(panel, [f"{e.name}\n{_seeds(len(e.seeds))}" for e in comparison.entries])
    panel.set_title(metric_name(metric), fontsize="medium")


def _draw_differences(panel: Any, comparison: Comparison, metric: str) -> None:
    pairs = [pair for pair in comparison.pairs if pair.metric == metric]
    kinds = {entry.name: entry.kind for entry in comparison.entries}
    for place, pair in enumerate(pairs):
        low, high = pair.interval
        panel.errorbar(
            pair.difference,
            place,
            xerr=[[pair.difference - low], [high - pair.difference]],
            fmt="o",
            capsize=3,
            color=_COLOURS[kinds[pair.ours]],
            markerfacecolor=None if pair.p_holm < LEVEL else "white",
        )
    panel.axvline(0, color="black", linewidth=0.8)
    if comparison.reference == "all":
        _label(panel, [f"{pair.ours} − {pair.theirs}" for pair in pairs])
        panel.set_title(f"{metric_name(metric)}: differences", fontsize="medium")
    else:
        _label(panel, [pair.ours for pair in pairs])
        name = textwrap.shorten(comparison.reference, 2 * _NAME_WIDTH, placeholder=" …")
        panel.set_title(f"{metric_name(metric)} minus that of {name}", fontsize="medium")


def _label(panel: Any, labels: list[str]) -> None:
    wrapped = ["\n".join(map(_wrapped, label.split("\n"))) for label in labels]
    panel.set_yticks(range(len(labels)), wrapped, fontsize="small")
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.locator_params(axis="x", nbins=5)
    panel.grid(axis="x", alpha=0.3)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _NAME_WIDTH)


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"

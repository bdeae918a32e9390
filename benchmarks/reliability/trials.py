"""A trial: a fault, the same command again, and what came of it."""

import json
import pathlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.reliability.fork_server import Ended
from benchmarks.reliability.programs import Programs, last_lines

# Of a trial: the result is that of a run that nothing happened to; a line said what was lost; the
# fault did not come about; the result is another, and nothing said so; a traceback, a hang, the
# exit by a signal, or an undocumented exit code.
SAME, SAID, MISSED, CHANGED, CRASHED = "same", "said", "missed", "changed", "crashed"
KINDS = (SAME, SAID, MISSED, CHANGED, CRASHED)

_TIMES = ("seconds", "interactions_per_second", "triplets_per_second")


class Outcome(NamedTuple):
    """What came of a trial, and for people, why."""

    kind: str
    detail: str = ""


class Trial(NamedTuple):
    """Something to try; `label` says what, exactly enough to do it again."""

    label: str
    run: Callable[[Programs], Outcome]


def result_of(folder: pathlib.Path, ended: Ended) -> dict[str, Any]:
    """All numbers that a finished run leaves, but times."""
    found: dict[str, Any] = {"tables": ended.tables}
    for path in sorted(folder.rglob("metrics.jsonl")) + sorted(folder.rglob("results.json")):
        text = path.read_text()
        records = (
            [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.split("\n")[:-1])
        )
        found[str(path.relative_to(folder))] = [_without_times(record) for record in records]
    return found


def _without_times(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_times(x) for name, x in value.items() if name not in _TIMES}


def leftovers(folder: pathlib.Path) -> list[str]:
    """Unfinished files that a finished run has not swept."""
    pattern = re.compile(r"\.tmp$|orbax-checkpoint-tmp|^\.writing-|^\.deleting")
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return [str(path) for path in found if pattern.search(path.name)]


def is_one_line(ended: Ended) -> bool:
    """Whether a program ended by one line that says why, besides warnings and how far it came."""
    return (
        len(re.findall(r"^error: ", ended.err, re.MULTILINE)) == 1
        and ended.err.rstrip().splitlines()[-1].startswith("error: ")
        and not is_noisy(ended)
    )


def is_noisy(ended: Ended) -> bool:
    """Whether it left a traceback, a panic, or pages of text that are not this library's."""
    noise = re.search(r"Traceback|panicked|^[FEW]\d{4} |Fatal Python", ended.err, re.MULTILINE)
    return bool(noise) or len(ended.err) > 6000


def judged(ended: Ended, expected: Any, found: Callable[[], Any]) -> Outcome:
    """Judge a command that ran to its end after a fault.

    Args:
      found: reads the result of a command that ended with 0.
    """
    if ended.code == 2 and is_one_line(ended):
        return Outcome(SAID, last_lines(ended, 1))
    if ended.code != 0 or is_noisy(ended):
        code = "it hung" if ended.code is None else f"exit code {ended.code}"
        return Outcome(CRASHED, f"{code}: {last_lines(ended)}")
    difference = first_difference(expected, found())
    if not difference:
        return Outcome(SAME, warned(ended))
    if warning := warned(ended):
        return Outcome(SAID, f"{warning}; {difference}")
    return Outcome(CHANGED, difference)


def warned(ended: Ended) -> str:
    """The last warning of a program, or ""."""
    lines = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    return lines[-1] if lines else ""


def first_difference(expected: Any, found: Any, where: str = "") -> str:
    """Say where two results differ first; "" if they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if expected.keys() != found.keys():
            return f"{where}: {sorted(expected)} became {sorted(found)}"
        pairs: Iterable[tuple[Any, Any, Any]] = ((k, expected[k], found[k]) for k in expected)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{where}: {len(expected)} records became {len(found)}"
        pairs = ((k, *both) for k, both in enumerate(zip(expected, found, strict=True)))
    else:
        return "" if expected == found else f"{where}: {expected!r} became {found!r}"
    return next(filter(None, (first_difference(a, b, f"{where}/{k}") for k, a, b in pairs)), "")


def run_all(
    name: str,
    trials: Sequence[Trial],
    servers: Sequence[Programs],
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run trials on all servers until they or the time are over, and count what came of them."""
    started, left, lock = time.monotonic(), iter(trials), threading.Lock()
    counts: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    broken: list[BaseException] = []

    def work(server: Programs) -> None:
        while time.monotonic() - started < seconds and not broken:
            with lock:
                trial = next(left, None)
            if trial is None:
                return
            try:
                outcome = trial.run(server)
            except BaseException as error:  # A fault of the harness: told by the main thread.
                broken.append(error)
                return
            with lock:
                counts[outcome.kind] += 1
                if outcome.kind in (CHANGED, CRASHED):
                    faults.append({"trial": trial.label, **outcome._asdict()})
                    say(f"  {outcome.kind}: {trial.label}: {outcome.detail}")
                done = sum(counts.values())
                if done % 20 == 0:
                    say(f"  {name}: {done} of {len(trials)}, {dict(counts)}")

    threads = [threading.Thread(target=work, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    found = {kind: counts[kind] for kind in KINDS}
    spent = round(time.monotonic() - started, 1)
    say(f"{name}: {found}, {spent:.0f} s")
    return {
        "name": name,
        "tried": sum(counts.values()),
        **found,
        "seconds": spent,
        "faults": faults,
    }

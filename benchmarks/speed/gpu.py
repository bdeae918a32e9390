"""Measure everything on a GPU, within minutes: one call, one file of figures.

  python -m benchmarks.speed.gpu --budget_s=480 --output=gpu.json
  python -m benchmarks.speed.gpu --quick   # tiny, on any device, in 2 minutes: whether it works

Sections (modules `gpu_*.py`) run one after the other in a process that is stopped when a section
takes longer than its share; the next one then starts in a fresh process. Figures are printed as
they are found, and the file is written after each section. Nothing is fetched: what is missing is
named.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import output, own_process, quick, report
from benchmarks.peers import contest
from benchmarks.speed import sections

_BUDGET = flags.DEFINE_float("budget_s", 480.0, "Seconds for everything.", lower_bound=1.0)
_OUTPUT = flags.DEFINE_string("output", "", "File for the results; by default gpu.json in --out.")
_SECTIONS = flags.DEFINE_multi_string(
    "sections", [], "What to measure, by the start of a name; once for each. All if none."
)

# What the library and its benchmarks import, by the names of the packages.
NEEDED = {
    "jax": "jax",
    "numpy": "numpy",
    "flax": "flax",
    "optax": "optax",
    "jaxtyping": "jaxtyping",
    "ml_collections": "ml_collections",
    "polars": "polars",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
}
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "triton")
# A section has at least so long, to start a process and to compile, as long as there is time.
_LEAST_SECONDS = 40.0


def missing() -> list[str]:
    """List the packages that are needed and not there."""
    return [package for module, package in NEEDED.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The package around it is not there.
        return False


def versions() -> dict[str, str]:
    """Find the versions of what takes part; PyTorch may be missing."""
    found = {"python": platform.python_version()}
    for package in _VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


class Run:
    """A run of sections within a time, and what it has found so far.

    Args:
      path: of the file that is written after each section.
    """

    def __init__(self, sizes: sections.Sizes, budget: float, path: pathlib.Path) -> None:
        self._sizes, self._path = sizes, path
        self._start = time.perf_counter()
        self._stop = self._start + budget
        self._worker: contest.Contestant | None = None
        self.results: dict[str, Any] = {
            "card": None,
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "figures": [],
            "sections": [],
        }

    def measure(self, names: Sequence[str]) -> None:
        """Run these sections; each has its share of the time that is left."""
        known = sections.SECTIONS
        try:
            for number, name in enumerate(names):
                weights = [known[other].weight for other in names[number:]]
                left = self._stop - time.perf_counter()
                share = max(left * weights[0] / sum(weights), _LEAST_SECONDS)
                self._section(name, min(share, left))
                self._write()
        finally:
            self._end_worker()

    def _section(self, name: str, share: float) -> None:
        start = time.perf_counter()
        print(f"\n== {name} (has {share:.0f} s)", flush=True)
        outcome = self._outcome(name, share)
        seconds = time.perf_counter() - start
        print(f"-- {outcome}, {seconds:.1f} s", flush=True)
        self.results["sections"].append({"name": name, "outcome": outcome, "seconds": seconds})

    def _outcome(self, name: str, share: float) -> str:
        """Run a section, and say how it ended."""
        if share <= 1:
            return "left out: no time"
        is_alone = sections.SECTIONS[name].is_alone
        if is_alone:
            self._end_worker()
        start = time.perf_counter()
        try:
            if self._worker is None:
                make = own_process.Local if self._sizes.is_local else own_process.Remote
                self._worker = make(sections.make_runner(self._sizes))
            self._worker.allow(share)
            self.results["card"] = self._worker.call("card")
            left = share - (time.perf_counter() - start)
            self._worker.call("run", name, self.results["figures"], left, on_message=self._take)
        except own_process.TooLateError:
            self._end_worker()
            return f"overran its {share:.0f} s"
        except own_process.FailedError as error:
            self._end_worker()
            return f"failed: {error}"
        if is_alone:
            self._end_worker()
        return "done"

    def _take(self, figure: sections.Figure) -> None:
        self.results["figures"].append(figure)
        print(as_text(figure), flush=True)

    def _end_worker(self) -> None:
        if self._worker:
            self._worker.close()
        self._worker = None

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        seconds = time.perf_counter() - self._start
        results = self.results | {"seconds": seconds}
        self._path.write_text(json.dumps(results, indent=2) + "\n")


def as_text(figure: sections.Figure) -> str:
    """Write a figure on a line: what, how much, what was asked, and a note."""
    value, asked = figure["value"], figure["asked"]
    text = f"{figure['name']}: " + ("none" if value is None else f"{value:,.4g} {figure['unit']}")
    if asked is not None:
        is_met = value is not None and (
            value <= asked if figure["less_is_better"] else value >= asked
        )
        text += f" (asked {asked:g}{'' if is_met else ', not met'})"
    return text + (f"; {figure['note']}" if "note" in figure else "")


def chosen(starts: Sequence[str]) -> list[str]:
    """List the sections whose names start so; all if none are given.

    Raises:
      UsageError: no section does.
    """
    names = list(sections.register_all())
    for start in starts:
        if not any(name.startswith(start) for name in names):
            raise app.UsageError(f"--sections: {start!r} starts none of {'; '.join(names)}")
    return [name for name in names if not starts or name.startswith(tuple(starts))]


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(budget_s=150.0)
    lacking = missing()
    if lacking:
        raise SystemExit(f"error: not installed: {' '.join(lacking)}; install them first")
    names = chosen(_SECTIONS.value)
    if _OUTPUT.value and output.is_recording():
        raise app.UsageError("--record writes to benchmarks/results; leave --output away")
    path = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else output.folder() / "gpu.json"
    # JAX takes most of the memory at its start; PyTorch's processes need some beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")
    sizes = sections.TINY if quick.is_asked() else sections.Sizes()
    run = Run(sizes, _BUDGET.value, path)
    run.measure(names)
    rows = [
        [row["name"], row["outcome"], f"{row['seconds']:.0f}"] for row in run.results["sections"]
    ]
    print(f"\n{report.table(['section', 'outcome', 's'], rows, names=2)}\nwritten to {path}")


if __name__ == "__main__":
    app.run(main)

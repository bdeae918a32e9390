"""Where figures come from, how they are written down and shown. Imports nothing heavy."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

_BENCHMARKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def results_path(name: str) -> str:
    """Where the results of a benchmark go unless told otherwise."""
    return os.path.join(_BENCHMARKS, "results", name)


def provenance(*packages: str) -> dict[str, Any]:
    """Machine, versions of Python and these packages, date and commit of a measurement."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **versions},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _machine() -> dict[str, Any]:
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=_BENCHMARKS, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # There is no git.
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def write_results(path: str, results: Mapping[str, Any]) -> None:
    """Write results as indented JSON, making the folder if need be."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as file:
        json.dump(results, file, indent=2)
        file.write("\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A plain-text table: the first `names` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = "<" * names + ">" * (len(cells) - names)
        columns = zip(cells, sides, widths, strict=True)
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in columns).rstrip()

    return "\n".join(map(line, [head, *rows]))

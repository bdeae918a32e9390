"""Say where measurements were made, and lay them out as tables. Imports nothing heavy."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

from benchmarks.output import ROOT


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
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # There is no git.
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Lay out a plain-text table: the first `names` columns to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = "<" * names + ">" * (len(cells) - names)
        columns = zip(cells, sides, widths, strict=True)
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in columns).rstrip()

    return "\n".join(map(line, [head, *rows]))

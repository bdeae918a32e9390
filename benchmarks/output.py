"""Where results are written: to a scratch folder, or over the committed ones with --record."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import app, flags, logging

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "benchmarks" / "results"
SCRATCH = ROOT / "build" / "bench"

_OUT = flags.DEFINE_string("out", "", "Folder for the results; by default build/bench.")
_RECORD = flags.DEFINE_boolean(
    "record", False, "Write to benchmarks/results, over the committed results."
)


def folder() -> pathlib.Path:
    """Return the folder that the flags ask for.

    Raises:
      UsageError: they contradict each other.
    """
    if not _RECORD.value:
        return pathlib.Path(_OUT.value) if _OUT.value else SCRATCH
    if _OUT.value:
        raise app.UsageError("--record writes to benchmarks/results; leave --out away")
    return COMMITTED


def is_recording() -> bool:
    """Whether the committed results are written."""
    return _RECORD.value


def check(argv: list[str]) -> None:
    """Raise UsageError for arguments that are no flags, or flags that contradict each other.

    JAX's notes about devices that it does not find are silenced too.
    """
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    folder()


def write(name: str, results: Mapping[str, Any]) -> pathlib.Path:
    """Write results as indented JSON, making the folder if need be, and print the path."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {path}", flush=True)
    return path

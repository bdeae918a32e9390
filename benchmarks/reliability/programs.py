"""Ask fork servers to run programs, and prepare what these read."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.output import ROOT
from benchmarks.reliability.fork_server import Ended, Program

USERS, ITEMS, EACH = 60, 80, 12


class Programs:
    """A fork server; ends when it is closed.

    Args:
      cache: folder of compiled programs and prepared data, which programs share.
      devices: of each process.
    """

    def __init__(self, cache: pathlib.Path, devices: int = 1) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX")}
        # All programs are kept, however quickly they compile, so that a trial compiles none.
        settings = {
            "HLR_JAX_CACHE": str(cache),
            "HLR_JAX_DATA": str(cache / "none"),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            # Two servers share the cores.
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.fork_server"],
            cwd=ROOT,
            env=kept | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *programs: Program) -> list[Ended]:
        """Run programs at once, to their ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(programs), file=self._process.stdin, flush=True)
        return [Ended(*ended) for ended in json.loads(self._process.stdout.readline())]

    def close(self) -> None:
        """End the server, which waits for its programs."""
        self._process.communicate()


def write_data(path: pathlib.Path) -> None:
    """Write interactions of four groups of users, each with items of its own."""
    rng = np.random.default_rng(0)
    rows = ["user,item"]
    for user in range(USERS):
        liked = rng.choice(np.arange(user % 4, ITEMS, 4), EACH, replace=False)
        rows += [f"{user},{item}" for item in liked.tolist()]
    path.write_text("\n".join(rows) + "\n")


def config_flags(data: pathlib.Path, epochs: int = 3, **changes: object) -> list[str]:
    """Flags of a small run; `changes` are fields, with `__` for a dot."""
    fields: dict[str, object] = {
        "data.name": "file",
        "data.path": data,
        "model.dim": 8,
        "training.epochs": epochs,
        "training.batch_size": 64,
        "training.patience": 0,
        # The state is saved after every span of steps.
        "training.checkpoint_minutes": 1e-5,
        "evaluation.bootstrap": 20,
    }
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    return [
        "--config=embedded/cml",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def last_lines(ended: Ended, count: int = 3) -> str:
    """What a program said last on standard error."""
    lines: Sequence[str] = ended.err.strip().splitlines()
    return " / ".join(line[-300:] for line in lines[-count:])

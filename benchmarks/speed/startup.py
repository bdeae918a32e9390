"""Start-up time: from the start of a process to the end of its first training step, or `--help`.

Each measurement is a process of its own. Compilation is measured without JAX's persistent
cache, with an empty one, and with one that holds everything:

  python -m benchmarks.speed.startup --models=cml,hlr --rounds=5
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from absl import app, flags

from benchmarks import output, own_process, quick, report, timing

_MODELS = flags.DEFINE_list("models", ["cml", "lrml", "hlr", "hlrpp"], "Models to start.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Processes of each kind.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1000, "B, positives per step.", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 100, "d, embedding size.", lower_bound=1)
_USERS = flags.DEFINE_integer("users", 6_031, "Made-up users.")
_ITEMS = flags.DEFINE_integer("items", 3_260, "Made-up items.")
_DRAWS = flags.DEFINE_integer("draws", 415_000, "Made-up draws of a pair.")
_CHILD = flags.DEFINE_string("child", None, "For a measured process: train this model.")

_LAUNCHERS = ("train", "evaluate", "recommend")
_KINDS = ("no cache", "empty cache", "full cache")


def child() -> None:
    """Import, build and take a step; print when each was done, by the clock of the machine."""
    import jax  # noqa: F401 - its time is reported apart from the library's.

    done = {"jax imported": time.time()}
    from benchmarks import shapes
    from benchmarks.speed import trainers

    done["hlr_jax imported"] = time.time()
    interactions = shapes.made_up(_USERS.value, _ITEMS.value, _DRAWS.value)
    done["data made"] = time.time()
    shape = shapes.Shape(_CHILD.value, dim=_DIM.value, batch_size=_BATCH_SIZE.value)
    trainer = trainers.LibraryTrainer(trainers.config_of(shape), interactions)
    done["trainer built"] = time.time()
    trainer.run(1)
    done["first step"] = time.time()
    print(json.dumps(done))


def start(model: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Measure the seconds from the start of a process to each of its milestones.

    Making up the data, which a real run does not do, is subtracted.
    """
    begin = time.time()
    moments = own_process.run(
        "benchmarks.speed.startup",
        *(*sys.argv[1:], f"--child={model}"),
        environment={**os.environ, **environment},
    )
    seconds = {name: moment - begin for name, moment in moments.items()}
    made = seconds.pop("data made") - seconds["hlr_jax imported"]
    for name in ("trainer built", "first step"):
        seconds[name] -= made
    return seconds


def starts(model: str) -> dict[str, list[dict[str, float]]]:
    """Measure the milestones of each round, by kind of cache."""
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    for _ in range(_ROUNDS.value):
        with tempfile.TemporaryDirectory() as folder:
            cache = {"JAX_ENABLE_COMPILATION_CACHE": "1", "JAX_COMPILATION_CACHE_DIR": folder}
            # JAX keeps only what took a second to compile, unless told otherwise.
            cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            rounds["no cache"].append(start(model, {"JAX_ENABLE_COMPILATION_CACHE": "0"}))
            rounds["empty cache"].append(start(model, cache))
            rounds["full cache"].append(start(model, cache))
    return rounds


def summaries(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Summarise each milestone: median and spread."""
    return {name: timing.summary([one[name] for one in rounds]) for name in rounds[0]}


def show_help(launcher: str) -> None:
    """Run `--help` of a launcher; absl's exit status for it is 1."""
    command = [sys.executable, str(output.ROOT / "launch" / f"{launcher}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "--workdir" not in done.stdout:
        raise RuntimeError(f"{launcher}.py --help: {done.stderr}")


def as_text(model: str, kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out medians, a row per kind of cache and a column per milestone."""
    rows = [
        [model, kind, *(f"{value['median']:.2f}" for value in milestones.values())]
        for kind, milestones in kinds.items()
    ]
    milestones = next(iter(kinds.values()))
    return report.table(["model", "compilation", *milestones], rows, names=2)


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(models=["cml"], rounds=1, dim=16, users=600, items=300, draws=20_000)
    if _CHILD.value:
        child()
        return
    calls = {name: lambda name=name: show_help(name) for name in _LAUNCHERS}
    helps = {
        name: timing.summary(times)
        for name, times in timing.alternate(calls, _ROUNDS.value).items()
    }
    rows = [[f"launch/{name}.py --help", f"{time['median']:.2f}"] for name, time in helps.items()]
    print(report.table(["", "seconds"], rows), flush=True)
    first_steps = {}
    for model in _MODELS.value:
        first_steps[model] = {kind: summaries(found) for kind, found in starts(model).items()}
        print(as_text(model, first_steps[model]), flush=True)
    output.write(
        "startup.json",
        {
            "settings": {"batch_size": _BATCH_SIZE.value, "dim": _DIM.value}
            | {"users": _USERS.value, "items": _ITEMS.value},
            "help_seconds": helps,
            "seconds_since_start": first_steps,
            **report.provenance("jax", "jaxlib", "flax", "optax", "numpy"),
        },
    )


if __name__ == "__main__":
    app.run(main)

"""Speed of the full softmax: batches of interactions, and batches of users with all of theirs.

CML is trained both ways, and the latter by PyTorch too (eager, compiled, and on a GPU as CUDA
graphs; the fastest counts). They take turns; before that, losses of the same users must agree.

  python -m benchmarks.speed.user_batches --predefined=DIR   # or made-up data of ML-1M's shape
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags

from benchmarks import output, peaks, quick, report, shapes, timing
from benchmarks.peers import contest, forms
from benchmarks.speed import against_pytorch
from benchmarks.speed.trainers import LibraryTrainer, config_of
from hlr_jax.config import DataConfig, LossConfig, SamplingConfig, TrainingConfig
from hlr_jax.data import Interactions, loading

_PREDEFINED = flags.DEFINE_string("predefined", None, "Real data: config.data.predefined.")
_DRAWS = flags.DEFINE_integer("draws", shapes.DATASETS["ml-1m"][2], "Made-up draws of a pair.")
_DIM = flags.DEFINE_integer("dim", 200, "d, embedding size.", lower_bound=1)
_USERS = flags.DEFINE_integer("users_per_step", 32, "Users of a step.", lower_bound=1)
_INTERACTIONS = flags.DEFINE_integer(
    "interactions_per_step", 2000, "Interactions of a step that takes these.", lower_bound=1
)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "About how long a timed call takes.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each trainer.", lower_bound=1)

_TEMPERATURE, _LEARNING_RATE = 0.25, 3e-3
USERS, INTERACTIONS = "hlr_jax, users", "hlr_jax, interactions"
PYTORCH = "PyTorch, users, {}"


def trainer(data: Interactions, batch_of: str, batch_size: int) -> LibraryTrainer:
    """Build a trainer of CML with the full softmax, on batches of users or of interactions."""
    config = config_of(shapes.Shape("cml", dim=_DIM.value))
    optimizer = dataclasses.replace(config.optimizer, learning_rate=_LEARNING_RATE)
    return LibraryTrainer(
        dataclasses.replace(
            config,
            sampling=SamplingConfig(negatives="full_catalog"),
            loss=LossConfig(name="softmax", options={"temperature": _TEMPERATURE}),
            optimizer=optimizer,
            training=TrainingConfig(batch_of=batch_of, batch_size=batch_size),
        ),
        data,
    )


def peers(data: Interactions, ours: LibraryTrainer) -> dict[str, Callable[[], Any]]:
    """List what builds trainers of PyTorch, by name, that start from our parameters."""
    # Only now: `--help` need not wait for PyTorch.
    from benchmarks.peers.plain_pytorch import Setting
    from benchmarks.peers.user_batches import user_batch_trainer

    platform = jax.default_backend()
    shape = shapes.Shape("cml", dim=_DIM.value, batch_size=_USERS.value)
    setting = Setting(platform, shape, data, ours.params(), 0.0, _LEARNING_RATE)
    return {
        PYTORCH.format(form): functools.partial(user_batch_trainer, setting, _TEMPERATURE, form)
        for form in forms.offered(platform)
    }


def measure(data: Interactions) -> dict[str, Any]:
    """Measure interactions per second of each trainer, and how batches of users compare."""
    ours = trainer(data, "users", _USERS.value)
    others = trainer(data, "interactions", _INTERACTIONS.value)
    first = functools.partial(against_pytorch.check_loss, *ours.users_and_loss())
    with contest.hold(peers(data, ours), first) as plain:
        runs = {USERS: ours.run, INTERACTIONS: others.run}
        for name, peer in plain.ready.items():
            runs[name] = functools.partial(peer.call, "run")
        steps = {name: timing.steps_that_take(_SECONDS.value, run) for name, run in runs.items()}
        calls = {name: functools.partial(run, steps[name]) for name, run in runs.items()}
        times = timing.alternate(calls, _ROUNDS.value)
    of_users = _USERS.value * len(data) / int((data.counts > 0).sum())
    per_step = dict.fromkeys(runs, of_users) | {INTERACTIONS: _INTERACTIONS.value}
    rates = {name: timing.rates(per_step[name] * steps[name], times[name]) for name in runs}
    best = plain.best(rates)
    median = rates[USERS]["median"]
    return {
        "interactions_per_second": rates,
        "interactions_per_step": per_step,
        "steps_per_call": steps,
        "seconds": times,
        "peers": plain.rows,
        "best_pytorch": best,
        "ratio": {
            name: median / rates[name]["median"] for name in (INTERACTIONS, best) if name in rates
        },
    }


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(draws=20_000, dim=16, users_per_step=8, interactions_per_step=100, rounds=2)
    quick.shrink(seconds=0.1)
    if _PREDEFINED.value:
        data = loading.load(DataConfig(predefined=_PREDEFINED.value)).train
    else:
        num_users, num_items, _ = shapes.DATASETS["ml-1m"]
        data = shapes.made_up(num_users, num_items, _DRAWS.value)
    with timing.OtherPrograms() as others:
        results = measure(data)
    rows = []
    for name, rate in results["interactions_per_second"].items():
        ratio = results["ratio"].get(name)
        epoch = f"{len(data) / rate['median']:.1f}"
        seconds = results["peers"].get(name, {}).get("compile_seconds")
        cells = [epoch, f"{ratio:.2f}" if ratio else "", f"{seconds:.0f}" if seconds else ""]
        rows.append([name, timing.with_quartiles(rate), *cells])
    for name, row in results["peers"].items():
        if "left_out" in row:
            rows.append([name, row["left_out"], "", "", ""])
    head = ["by", "interactions/s (quartiles)", "s/epoch", "batches of users / it", "compiled in s"]
    print(f"CML, {len(data):,} interactions, {data.num_items:,} items\n{report.table(head, rows)}")
    output.write(
        "user_batches.json",
        {
            "settings": {"dim": _DIM.value, "temperature": _TEMPERATURE},
            "data": {"predefined": _PREDEFINED.value, "interactions": len(data)}
            | {"users": data.num_users, "items": data.num_items},
            **results,
            "cores_others_used": others.cores,
            "device": peaks.device(),
            **report.provenance("jax", "jaxlib", "flax", "optax", "numpy", "torch"),
        },
    )


if __name__ == "__main__":
    app.run(main)

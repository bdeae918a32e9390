"""Speed of the full softmax: batches of interactions, and batches of users with all of theirs.

CML is trained both ways, and the latter by PyTorch too (eager and compiled by torch.compile; the
faster one counts). They take turns; before that, losses of the same users must agree.

  python -m benchmarks.speed.user_batches --predefined=DIR   # or made-up data of ML-1M's shape
"""

import dataclasses
import functools
from typing import Any

from absl import app, flags

from benchmarks import output, peaks, quick, report, shapes, timing
from benchmarks.speed.trainers import LibraryTrainer, config_of
from hlr_jax.config import DataConfig, LossConfig, SamplingConfig, TrainingConfig
from hlr_jax.data import Interactions, datasets

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
EAGER, COMPILED = "PyTorch, users, eager", "PyTorch, users, compiled"


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


def make_trainers(data: Interactions) -> dict[str, Any]:
    """Build trainers by name, each with `run(steps)`, that start from the same parameters.

    Raises:
      RuntimeError: their losses differ.
    """
    # Only now: `--help` need not wait for PyTorch.
    from benchmarks.peers import torch_device
    from benchmarks.peers.user_batches import UserBatchTrainer

    ours = trainer(data, "users", _USERS.value)
    found: dict[str, Any] = {
        USERS: ours,
        INTERACTIONS: trainer(data, "interactions", _INTERACTIONS.value),
    }
    users, loss = ours.users_and_loss()
    for name, compiled in ((EAGER, False), (COMPILED, True)):
        peer = UserBatchTrainer(
            *(ours.params(), data, _USERS.value, _TEMPERATURE, _LEARNING_RATE, compiled)
        )
        peers_loss = peer.loss_of(torch_device.tensor(users).long()).item()
        if abs(loss - peers_loss) > 1e-4 * abs(loss):
            raise RuntimeError(f"loss {loss}, in PyTorch {peers_loss}")
        found[name] = peer
    return found


def measure(data: Interactions) -> dict[str, Any]:
    """Measure interactions per second of each trainer, and how batches of users compare."""
    trainers = make_trainers(data)
    of_users = _USERS.value * len(data) / int((data.counts > 0).sum())
    per_step = dict.fromkeys(trainers, of_users) | {INTERACTIONS: _INTERACTIONS.value}
    steps = {name: timing.steps_that_take(_SECONDS.value, x.run) for name, x in trainers.items()}
    calls = {name: functools.partial(x.run, steps[name]) for name, x in trainers.items()}
    times = timing.alternate(calls, _ROUNDS.value)
    rates = {name: timing.rates(per_step[name] * steps[name], times[name]) for name in trainers}
    best = max((EAGER, COMPILED), key=lambda name: rates[name]["median"])
    ours = rates[USERS]["median"]
    return {
        "interactions_per_second": rates,
        "interactions_per_step": per_step,
        "steps_per_call": steps,
        "seconds": times,
        "best_pytorch": best,
        "ratio": {name: ours / rates[name]["median"] for name in (INTERACTIONS, best)},
    }


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(draws=20_000, dim=16, users_per_step=8, interactions_per_step=100, rounds=2)
    quick.shrink(seconds=0.1)
    if _PREDEFINED.value:
        data = datasets.load(DataConfig(predefined=_PREDEFINED.value)).train
    else:
        num_users, num_items, _ = shapes.DATASETS["ml-1m"]
        data = shapes.made_up(num_users, num_items, _DRAWS.value)
    with timing.OtherPrograms() as others:
        results = measure(data)
    rows = []
    for name, rate in results["interactions_per_second"].items():
        ratio = results["ratio"].get(name)
        epoch = f"{len(data) / rate['median']:.1f}"
        rows.append([name, timing.with_quartiles(rate), epoch, f"{ratio:.2f}" if ratio else ""])
    head = ["by", "interactions/s (quartiles)", "s/epoch", "batches of users / it"]
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

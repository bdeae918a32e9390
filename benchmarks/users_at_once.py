"""The softmax over the whole catalogue: interactions by themselves, and users with all of theirs.

CML is trained both ways, and the latter by PyTorch too (eager and through torch.compile; the
faster one counts). They take turns; before that, losses of the same users must agree.

  python benchmarks/users_at_once.py --predefined=DIR   # without it, made-up data of ML-1M's shape
"""

import dataclasses
import functools
from typing import Any

from absl import app, flags
from harness import peaks, report, shapes, timing
from harness.ours import OurTrainer, config_of

from hlr_jax.config import DataConfig, LossConfig, SamplingConfig, TrainingConfig
from hlr_jax.data import Interactions, datasets

_PREDEFINED = flags.DEFINE_string("predefined", None, "Real data: config.data.predefined.")
_DRAWS = flags.DEFINE_integer("draws", shapes.DATASETS["ml-1m"][2], "Made-up draws of a pair.")
_DIM = flags.DEFINE_integer("dim", 200, "d, embedding size.", lower_bound=1)
_USERS = flags.DEFINE_integer("users_per_step", 32, "Users of a step.", lower_bound=1)
_INTERACTIONS = flags.DEFINE_integer(
    "interactions_per_step", 2000, "Interactions of a step that takes these.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each contestant.", lower_bound=1)
_OUT = flags.DEFINE_string("out", report.results_path("users_at_once.json"), "JSON of results.")

_TEMPERATURE, _LEARNING_RATE = 0.25, 3e-3
BY_USER, ONE_BY_ONE = "hlr_jax, users", "hlr_jax, interactions"
EAGER, COMPILED = "PyTorch, users, eager", "PyTorch, users, compiled"


def trainer(data: Interactions, batch_of: str, batch_size: int) -> OurTrainer:
    config = config_of(shapes.Shape("cml", dim=_DIM.value))
    optimizer = dataclasses.replace(config.optimizer, learning_rate=_LEARNING_RATE)
    return OurTrainer(
        dataclasses.replace(
            config,
            sampling=SamplingConfig(pool="catalogue"),
            loss=LossConfig(name="softmax", temperature=_TEMPERATURE),
            optimizer=optimizer,
            training=TrainingConfig(batch_of=batch_of, batch_size=batch_size),
        ),
        data,
    )


def contestants(data: Interactions) -> dict[str, Any]:
    """Trainers by name, each with `run(steps)`, from the same parameters.

    Raises:
      RuntimeError: their losses differ.
    """
    from peers import torch_device  # Only now: `--help` need not wait for PyTorch.
    from peers.users_at_once import UsersAtOnce

    ours = trainer(data, "users", _USERS.value)
    found: dict[str, Any] = {
        BY_USER: ours,
        ONE_BY_ONE: trainer(data, "interactions", _INTERACTIONS.value),
    }
    batch, loss = ours.batch_and_loss()
    for name, compiled in ((EAGER, False), (COMPILED, True)):
        peer = UsersAtOnce(
            *(ours.params(), data, _USERS.value, _TEMPERATURE, _LEARNING_RATE, compiled)
        )
        peers_loss = peer.loss_of(torch_device.tensor(batch.users).long()).item()
        if abs(loss - peers_loss) > 1e-4 * abs(loss):
            raise RuntimeError(f"loss {loss}, in PyTorch {peers_loss}")
        found[name] = peer
    return found


def measure(data: Interactions) -> dict[str, Any]:
    """Interactions per second of each contestant, and how users at once compare."""
    trainers = contestants(data)
    of_users = _USERS.value * len(data) / int((data.counts > 0).sum())
    per_step = dict.fromkeys(trainers, of_users) | {ONE_BY_ONE: _INTERACTIONS.value}
    steps = {name: timing.steps_that_take(1.0, x.run) for name, x in trainers.items()}
    calls = {name: functools.partial(x.run, steps[name]) for name, x in trainers.items()}
    times = timing.alternate(calls, _ROUNDS.value)
    rates = {name: timing.rates(per_step[name] * steps[name], times[name]) for name in trainers}
    best = max((EAGER, COMPILED), key=lambda name: rates[name]["median"])
    ours = rates[BY_USER]["median"]
    return {
        "interactions_per_second": rates,
        "interactions_per_step": per_step,
        "steps_per_call": steps,
        "seconds": times,
        "best_pytorch": best,
        "ratio": {name: ours / rates[name]["median"] for name in (ONE_BY_ONE, best)},
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    if _PREDEFINED.value:
        data = datasets.load(DataConfig(predefined=_PREDEFINED.value)).train
    else:
        num_users, num_items, _ = shapes.DATASETS["ml-1m"]
        data = shapes.made_up(num_users, num_items, _DRAWS.value)
    with timing.Bystanders() as others:
        results = measure(data)
    rows = []
    for name, rate in results["interactions_per_second"].items():
        ratio = results["ratio"].get(name)
        epoch = f"{len(data) / rate['median']:.1f}"
        rows.append([name, timing.with_quartiles(rate), epoch, f"{ratio:.2f}" if ratio else ""])
    head = ["by", "interactions/s (quartiles)", "s/epoch", "users at once / it"]
    print(f"CML, {len(data):,} interactions, {data.num_items:,} items\n{report.table(head, rows)}")
    report.write_results(
        _OUT.value,
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

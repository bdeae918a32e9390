"""Speed of ranking: users per second for top-10 lists of the full catalogue without seen items.

With ML-1M's shapes this library is compared, in one run, with a plain PyTorch version that builds
the relations of chunks of users and items (eager and compiled, small and large chunks; the fastest
counts). Before that, both must give the same scores for the same users and histories. With ML-20M's
shapes this library is measured alone, each model in a process of its own, with its peak memory:

  python -m benchmarks.speed.ranking
  python -m benchmarks.speed.ranking --shapes=ml-20m --models=cml,hlr

Models have their initial random parameters and the interactions are made up: neither changes the
time that ranking takes.
"""

import functools
import json
import resource
import sys
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import output, own_process, quick, report, timing

_SHAPES = flags.DEFINE_enum("shapes", "ml-1m", ["ml-1m", "ml-20m"], "Sizes of the tables.")
_MODELS = flags.DEFINE_list("models", ["cml", "lrml", "hlr", "hlrpp"], "Models to rank with.")
_SCALE = flags.DEFINE_float("scale", 1.0, "Shrinks users, items and interactions, for a try.")
_USERS = flags.DEFINE_integer("users", 6031, "Users to rank for, by this library.", lower_bound=1)
_PEER_USERS = flags.DEFINE_integer(
    "peer_users", 32, "The same, by PyTorch with histories.", lower_bound=1
)
_CHUNKS = flags.DEFINE_list("peer_chunks", ["4", "32", "1024"], "MiB of relations per chunk.")
_DIM = flags.DEFINE_integer("dim", 100, "d, embedding size.", lower_bound=1)
_SLOTS = flags.DEFINE_integer("slots", 20, "M, memory slots.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("history_length", 50, "P, history items.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed calls of each ranker.", lower_bound=1)
_ALONE = flags.DEFINE_string("alone", None, "For a measuring process: rank with this model.")

OURS = "hlr_jax"
K = 10


def setting(model: str) -> tuple[Any, Any]:
    """Return the shape and the interactions that the flags ask for."""
    from benchmarks import shapes  # The process that starts the measuring ones stays small.

    shape = shapes.Shape(model, _DIM.value, _SLOTS.value, _LENGTH.value)
    sizes = (round(size * _SCALE.value) for size in shapes.DATASETS[_SHAPES.value])
    return shape, shapes.made_up(*sizes)


def some_users(num: int, num_users: int) -> np.ndarray:
    """Choose `num` users, active or not; all where there are fewer."""
    return np.random.default_rng(0).permutation(num_users)[:num].astype(np.int32)


def alone() -> dict[str, Any]:
    """Measure users per second of this library, and the peak memory of this process."""
    from benchmarks.speed.trainers import LibraryRanker

    shape, interactions = setting(_ALONE.value)
    users = some_users(_USERS.value, interactions.num_users)
    ranker = LibraryRanker(shape, interactions, K)
    times = timing.alternate({OURS: functools.partial(ranker.top_k, users)}, _ROUNDS.value)
    return {
        "model": shape.model,
        "users_per_second": {OURS: timing.rates(len(users), times[OURS])},
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        **_described(interactions),
    }


def against_pytorch(model: str) -> dict[str, Any]:
    """Measure users per second of this library and of PyTorch.

    Raises:
      RuntimeError: their scores differ.
    """
    import torch

    from benchmarks.peers.plain_pytorch import PlainModel, PlainRanker
    from benchmarks.speed.trainers import MARGIN, LibraryRanker

    torch.compiler.reset()  # What was compiled for the model before does not count against this.
    shape, interactions = setting(model)
    ours = LibraryRanker(shape, interactions, K)
    plain = PlainModel(model, ours.params(), MARGIN)
    length = shape.history_length if shape.has_history else 0
    users = {OURS: some_users(_USERS.value, interactions.num_users)}
    rankers: dict[str, Any] = {OURS: ours}
    for compiled in (False, True):
        for chunk in _CHUNKS.value:
            name = f"PyTorch, {'compiled' if compiled else 'eager'}, {chunk} MiB"
            budget = int(chunk) * 2**20
            rankers[name] = PlainRanker(plain, interactions, length, K, budget, compiled)
            num = _PEER_USERS.value if shape.has_history else _USERS.value
            users[name] = some_users(num, interactions.num_users)
            check_scores(ours, rankers[name], users[name])

    calls = {name: functools.partial(rankers[name].top_k, users[name]) for name in rankers}
    times = timing.alternate(calls, _ROUNDS.value)
    rates = {name: timing.rates(len(users[name]), times[name]) for name in rankers}
    best = max(list(rates)[1:], key=lambda name: rates[name]["median"])
    return {
        "model": model,
        "users_per_second": rates,
        "seconds": times,
        "best_pytorch": best,
        "ratio": rates[OURS]["median"] / rates[best]["median"],
        **_described(interactions),
    }


def check_scores(ours: Any, peer: Any, users: np.ndarray) -> None:
    """Raise RuntimeError where the top scores of the same users and histories differ."""
    _, expected = ours.top_k(users)
    _, found = peer.top_k(users, ours.histories(users))
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-4):
        raise RuntimeError(f"scores differ by up to {np.abs(found - expected).max()}")


def _described(interactions: Any) -> dict[str, int]:
    return {
        "users": interactions.num_users,
        "items": interactions.num_items,
        "interactions": len(interactions),
    }


def in_own_process(model: str) -> dict[str, Any]:
    """Run `alone` in a fresh process, whose peak memory is that of ranking."""
    return own_process.run("benchmarks.speed.ranking", *sys.argv[1:], f"--alone={model}")


def as_text(result: dict[str, Any]) -> str:
    """Lay out users per second of each ranker, with the ratio or the peak memory."""
    rows = []
    for name, rate in result["users_per_second"].items():
        ratio = f"{result['ratio']:.1f}" if name == result.get("best_pytorch") else ""
        peak = f"{result['peak_gib']:.2f}" if "peak_gib" in result else ""
        rows.append([result["model"], name, timing.with_quartiles(rate), ratio, peak])
    head = ["model", "by", "users/s (quartiles)", "ours / it", "peak GiB"]
    return report.table(head, rows, names=2)


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(models=["cml", "hlr"], scale=0.1, users=50, peer_users=4, peer_chunks=["4"])
    quick.shrink(dim=16, slots=5, history_length=10, rounds=2)
    if _ALONE.value:
        json.dump(alone(), sys.stdout)
        return
    results = []
    for model in _MODELS.value:
        measure = against_pytorch if _SHAPES.value == "ml-1m" else in_own_process
        results.append(measure(model))
        print(as_text(results[-1]), flush=True)
    from benchmarks import peaks  # Only now: a process started from here counts our memory as its.

    name = "ranking.json" if _SHAPES.value == "ml-1m" else f"ranking_{_SHAPES.value}.json"
    output.write(
        name,
        {
            "shapes": _SHAPES.value,
            "settings": {"dim": _DIM.value, "slots": _SLOTS.value}
            | {"history_length": _LENGTH.value, "k": K, "users": _USERS.value},
            "results": results,
            "peaks": peaks.peaks(),
            "device": peaks.device(),
            **report.provenance("jax", "jaxlib", "flax", "numpy", "torch"),
        },
    )


if __name__ == "__main__":
    app.run(main)

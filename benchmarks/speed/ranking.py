"""Speed of ranking: users per second for top-10 lists of the full catalogue without seen items.

With ML-1M's shapes this library is compared, in one run, with a plain PyTorch version that builds
the relations of chunks of users and items (eager, compiled, and on a GPU as CUDA graphs, small and
large chunks; the fastest counts, and what is not compiled within a minute is left out). Before
that, both must give the same scores for the same users and histories. With ML-20M's shapes this
library is measured alone, each model in a process of its own, with its peak memory:

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


def compared(model: str) -> dict[str, Any]:
    """Measure users per second of this library and of PyTorch."""
    import jax

    from benchmarks.peers import contest, forms
    from benchmarks.speed import against_pytorch
    from benchmarks.speed.trainers import LibraryRanker

    shape, interactions = setting(model)
    ours = LibraryRanker(shape, interactions, K)
    users = some_users(_USERS.value, interactions.num_users)
    num = _PEER_USERS.value if shape.has_history else _USERS.value
    peers_users = some_users(num, interactions.num_users)
    of_forms = forms.offered_for_ranking(jax.default_backend())
    chosen = [(form, int(chunk)) for form in of_forms for chunk in _CHUNKS.value]
    builds = against_pytorch.rankers(shape, interactions, ours.params(), K, chosen)
    expected = ours.histories(peers_users), ours.top_k(peers_users)[1]
    first = functools.partial(against_pytorch.check_scores, peers_users, *expected)
    with contest.hold(builds, first) as plain:
        calls = {OURS: functools.partial(ours.top_k, users)}
        for name, peer in plain.ready.items():
            calls[name] = functools.partial(peer.call, "top_k", peers_users)
        times = timing.alternate(calls, _ROUNDS.value)
    ranked = dict.fromkeys(times, len(peers_users)) | {OURS: len(users)}
    rates = {name: timing.rates(ranked[name], times[name]) for name in times}
    best = plain.best(rates)
    return {
        "model": model,
        "users_per_second": rates,
        "seconds": times,
        "peers": plain.rows,
        "best_pytorch": best,
        "ratio": best and rates[OURS]["median"] / rates[best]["median"],
        **_described(interactions),
    }


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
    compiled = result.get("peers", {})
    for name, rate in result["users_per_second"].items():
        ratio = f"{result['ratio']:.1f}" if name == result.get("best_pytorch") else ""
        peak = f"{result['peak_gib']:.2f}" if "peak_gib" in result else ""
        seconds = f"{compiled[name]['compile_seconds']:.0f}" if name in compiled else ""
        rows.append([result["model"], name, timing.with_quartiles(rate), ratio, seconds, peak])
    for name, row in compiled.items():
        if "left_out" in row:
            rows.append([result["model"], name, row["left_out"], "", "", ""])
    head = ["model", "by", "users/s (quartiles)", "ours / it", "compiled in s", "peak GiB"]
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
        measure = compared if _SHAPES.value == "ml-1m" else in_own_process
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

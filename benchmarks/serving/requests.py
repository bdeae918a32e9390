"""Milliseconds of a single request at ML-1M's size, beside the library implicit.

  python -m benchmarks.serving.requests

A request asks for the 10 best items of one user, by id, without what the user has; its answer is a
data frame. implicit's matrix factorisation has as many dimensions, and answers with arrays of rows.
Both are asked in turns. Models have their initial random parameters and the interactions are made
up: neither changes the time that a request takes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import output, report, shapes

_MODELS = flags.DEFINE_list("models", ["cml", "hlr", "items_only"], "Models to ask.")
_DIM = flags.DEFINE_integer("dim", 400, "d, embedding size.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("history_length", 20, "P, history items.", lower_bound=1)
_SLOTS = flags.DEFINE_integer("slots", 8, "M, memory slots.", lower_bound=1)
_REQUESTS = flags.DEFINE_integer("requests", 300, "Requests of each.", lower_bound=10)

K, THEIRS = 10, "implicit ALS"


def untrained(model: str) -> Any:
    """Make a recommender of ML-1M's size with random parameters."""
    import jax

    from hlr_jax import Config, Dataset, ModelConfig, Recommender, SamplingConfig
    from hlr_jax.config import build
    from hlr_jax.parallel.placement import Placement
    from hlr_jax.training.inputs import make_objective
    from hlr_jax.training.state import new_params

    train = shapes.made_up(*shapes.DATASETS["ml-1m"])
    empty = type(train).none(train.num_users, train.num_items)
    ids = np.arange(train.num_users), np.arange(train.num_items)
    data = Dataset("made up", train, empty, empty, *ids)
    options = {"slots": _SLOTS.value} if model in ("lrml", "hlr", "hlrpp") else {}
    config = Config(
        model=ModelConfig(model, dim=_DIM.value, options=options),
        sampling=SamplingConfig(history_length=_LENGTH.value),
    )
    relation = build.build_model(config)
    placement = Placement.of(config.sharding, relation, data.num_users, data.num_items)
    objective = make_objective(config, relation, data.num_items, None)
    params = new_params(jax.random.key(0), objective, placement)
    return Recommender(config, data, relation, params, placement)


def asked(model: str) -> tuple[dict[str, Callable[[int], Any]], Any]:
    """Return what answers a request for a user's row, by name."""
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    ours = untrained(model)
    train = ours.dataset.train
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(train), np.float32), train.items, train.offsets),
        (train.num_users, train.num_items),
    )
    theirs = AlternatingLeastSquares(_DIM.value)
    rng = np.random.default_rng(0)
    theirs.user_factors = rng.normal(size=(train.num_users, _DIM.value)).astype(np.float32)
    theirs.item_factors = rng.normal(size=(train.num_items, _DIM.value)).astype(np.float32)
    return {
        "hlr_jax": lambda user: ours.recommend([user], K),
        "recommend_for": lambda user: ours.recommend_for(train.of(user).tolist(), K),
        THEIRS: lambda user: theirs.recommend(user, matrix[user], K),
    }, train


def measured(model: str) -> dict[str, Any]:
    """Ask in turns, and list milliseconds of each request."""
    import time

    answers, train = asked(model)
    users = np.random.default_rng(1).permutation(np.flatnonzero(train.counts))
    times: dict[str, list[float]] = {name: [] for name in answers}
    for number, user in enumerate(np.resize(users, _REQUESTS.value + 20).tolist()):
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(user)
            if number >= 20:  # The first ones compile.
                times[name].append(1e3 * (time.perf_counter() - start))
    summary = {
        name: {"p50": float(np.median(x)), "p99": float(np.quantile(x, 0.99))}
        for name, x in times.items()
    }
    ratio = summary["hlr_jax"]["p50"] / summary[THEIRS]["p50"]
    return {"model": model, "milliseconds": summary, "ratio_to_implicit": ratio}


def main(argv: list[str]) -> None:
    """Measure each model, print and write."""
    output.check(argv)
    results = [measured(model) for model in _MODELS.value]
    for found in results:
        for name, values in found["milliseconds"].items():
            print(f"{found['model']:<12}{name:<16}{values['p50']:8.2f}{values['p99']:8.2f} ms")
    sizes = {"dim": _DIM.value, "history_length": _LENGTH.value, "k": K}
    output.write(
        "serving/requests.json",
        {**report.provenance("jax", "implicit"), **sizes, "models": results},
    )


if __name__ == "__main__":
    app.run(main)

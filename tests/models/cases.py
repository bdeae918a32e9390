"""Models with each of their options, a batch, and random parameters, for oracle and library."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.typing import ArrayLike

from hlr_jax.config import Config, LossConfig, ModelConfig, OptimizerConfig
from hlr_jax.models import Relation, build, names
from hlr_jax.models import relation as base
from hlr_jax.models.relation import Histories
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import optimizers
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params
from hlr_jax.training.step import TrainState

# Tiny, so that the oracle's loops and numerical gradients are quick.
USERS, ITEMS, DIM, SLOTS, PLACES = 4, 10, 6, 4, 4

# Values that each option of a relation is tested with, alone and together.
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "cml": {},
    "cmlf": {},
    "lrml": {},
    "hlr": {
        "include_user": (True, False),
        "separate_user_memory": (False, True),
        "beta": (1.0, 0.5),
    },
    "hlrpp": {"beta": (1.0, 0.5)},
    "adacml": {"beta": (1.0, 0.5)},
    # Most translated users leave the smaller ball, and none the larger.
    "history_mean": {"history_weight": (1.0, 0.5), "clip_translated": (1.0, 3.0)},
    # Users' diversity is below, between and above the bounds.
    "dpcml": {
        "vectors": (2, 3),
        "diversity_weight": (10.0,),
        "min_diversity": (0.05, 0.9),
        "max_diversity": (1.2,),
    },
    "transcf": {"alpha_nbr": (0.1, 0.4), "alpha_dist": (0.1, 0.0)},
}
# Options that size or bound parameters, or of what is added to the loss of a step; they have tests
# of their own.
NOT_IN_RELATION = {"slots", "clip_memory", "clip_key", "feature_weight", "feature_hidden"}


def variants(name: str) -> list[dict[str, Any]]:
    choices = CHOICES.get(name, {})
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


NO_ORACLE = pytest.mark.skip(
    reason="no oracle: add the relation to tests/oracles.py and its options to CHOICES in cases.py"
)
VARIANTS = [
    pytest.param(
        name,
        options,
        id="-".join([name, *map(str, options.values())]),
        marks=() if name in CHOICES else NO_ORACLE,
    )
    for name in names()
    for options in variants(name)
]
WITH_HISTORY = [
    pytest.param(*variant.values, id=str(variant.id))
    for variant in VARIANTS
    if base.get(str(variant.values[0])).uses_history
]


compiled_relation = jax.jit(
    lambda model, params, *rows: base.apply(model, params, "__call__", *rows), static_argnums=0
)
compiled_scores = jax.jit(base.scores, static_argnums=0)


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


class Case:
    """Random parameters and a batch, in the oracle's form and in the library's.

    The batch has a full, two short and an empty history, and ends in a row of padding.
    """

    users = np.array([0, 1, 2, 3, 1])
    history = np.array(
        [[1, 2, 3, 4], [5, -1, -1, -1], [-1, -1, -1, -1], [-1, 6, 0, -1], [7, 8, 9, -1]]
    )
    row_mask = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    items = np.array([[5, 7, 3, 1], [2, 0, 9, 6], [4, 8, 1, 2], [9, 3, 2, 7], [6, 1, 4, 0]])
    # Who is whose neighbour; the last user and some items have none.
    pairs = ((0, 1), (0, 2), (0, 5), (0, 9), (1, 5), (1, 2), (1, 7), (2, 4), (2, 2))

    def __init__(self, name: str, options: Mapping[str, Any], num_negatives: int = 3) -> None:
        rng = np.random.default_rng(5)
        sizes = {"slots": SLOTS} if "slots" in base.options(base.get(name)) else {}
        self.name, self.options = name, dict(options)
        self.model = build(name, DIM, {**sizes, **options})
        shapes = shapes_of(self.model)
        self.params = {
            "user": rng.normal(0, 0.45, (USERS, self.model.user_width)),
            "item": rng.normal(0, 0.45, (ITEMS, DIM)),
        }
        for key in sorted(shapes):
            scale = 1.5 if key.endswith("key") else 0.6
            self.params[key] = rng.normal(0, scale, shapes[key])
        self.batch = {
            "users": self.users,
            "positives": self.items[:, 0],
            "negatives": self.items[:, 1 : 1 + num_negatives],
            "history": self.history,
            "row_mask": self.row_mask,
        }
        self.neighbours: dict[str, np.ndarray] = {}
        if self.model.uses_neighbours:
            self.neighbours = dict(zip(("user", "item"), self.means_of_neighbours(), strict=True))
            self.batch |= self.neighbours_of(self.batch)

    def means_of_neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the parameters as they are now; in a gradient they stay what they are."""
        return oracles.transcf_neighbours(self.params, self.pairs)

    def neighbours_of(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "user_neighbours": self.neighbours["user"][batch["users"]],
            "positive_neighbours": self.neighbours["item"][batch["positives"]],
            "negative_neighbours": self.neighbours["item"][batch["negatives"]],
        }

    def read(self, params: Params) -> Params:
        """What the model reads of parameters: rows followed by the means of their neighbours."""
        wider = {
            name: jnp.concatenate([params[name], jnp.asarray(means, params[name].dtype)], axis=1)
            for name, means in self.neighbours.items()
        }
        return params | wider

    def read_params(self) -> Params:
        return self.read(self.jax_params())

    def jax_params(self, dtype: Any = jnp.float32) -> Params:
        return as_jax_params(self.params, dtype)

    def jax_histories(self, rows: slice = slice(None)) -> Histories | None:
        return as_histories(self.history[rows]) if self.model.uses_history else None

    def jax_batch(self, dtype: Any = jnp.float32) -> Batch:
        items = np.column_stack([self.batch["positives"], self.batch["negatives"]])
        return Batch(
            jnp.asarray(self.users, jnp.int32),
            jnp.asarray(items, jnp.int32),
            self.jax_histories(),
            jnp.asarray(self.row_mask, dtype),
        )

    def loss(self, params: Mapping[str, np.ndarray], loss: LossConfig) -> float:
        """The oracle's; it must be smooth here, or a gradient would say nothing."""
        options = {**self.options, "copy_relation": loss.copy_relation}
        return oracles.batch_loss(
            dict(params),
            self.batch,
            self.name,
            options,
            margin=loss.margin,
            reduction=loss.reduction,
            rank_weight=loss.rank_weight,
            covariance_weight=loss.covariance,
        )

    def distances(self, copy_relation: bool) -> np.ndarray:
        options = {**self.options, "copy_relation": copy_relation}
        return np.column_stack(oracles.batch_distances(self.params, self.batch, self.name, options))

    def check_hinges(self, loss: LossConfig) -> None:
        """Some hinges are active and some are not, and none is near its kink."""
        distances = self.distances(loss.copy_relation)[self.row_mask == 1]
        hinge = distances[:, :1] - distances[:, 1:] + loss.margin
        assert np.abs(hinge).min() > 1e-3
        assert 0 < (hinge > 0).sum() < hinge.size


def shapes_of(model: Relation) -> dict[str, tuple[int, ...]]:
    """Of the relation's own parameters."""
    params = jax.eval_shape(lambda key: training.init_params(key, model, 2, 2), jax.random.key(0))
    return {name: x.shape for name, x in params["relation"].items()}


def as_jax_params(params: Mapping[str, np.ndarray], dtype: Any = jnp.float32) -> Params:
    """`{"user", "item", "relation": {...}}` of the oracle's flat parameters."""
    arrays = {name: jnp.asarray(value, dtype) for name, value in params.items()}
    tables = {name: arrays.pop(name) for name in ("user", "item")}
    return {**tables, "relation": arrays}


def as_oracle_params(params: Params) -> dict[str, np.ndarray]:
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {name: np.asarray(value, np.float64) for name, value in flat.items()}


def as_histories(items: np.ndarray) -> Histories:
    return Histories(jnp.asarray(np.maximum(items, 0), jnp.int32), jnp.asarray(items >= 0))


def gradient_of_step(case: Case, loss: LossConfig) -> dict[str, np.ndarray]:
    """What a step of plain gradient descent at rate 1, without constraints, subtracts."""
    config = Config(
        model=ModelConfig(clip_norm=1e9),
        loss=loss,
        optimizer=OptimizerConfig(name="sgd", learning_rate=1.0),
    )
    optimizer = optimizers.build(config.optimizer, config.training, 1)
    state = TrainState.of(case.jax_params(jnp.float64), optimizer)
    batch = case.jax_batch(jnp.float64)
    read = case.read(state.params) if case.model.uses_neighbours else None
    after, _ = training.train_step(state, batch, case.model, optimizer, config, read=read)
    before, after = as_oracle_params(state.params), as_oracle_params(after.params)
    return {name: before[name] - after[name] for name in before}

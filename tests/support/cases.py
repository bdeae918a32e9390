"""Models with each of their options, a batch, and random parameters, for oracle and library."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.typing import ArrayLike

from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.geometry.sphere import Sphere
from hlr_jax.functional.losses import LOSSES, Loss
from hlr_jax.models import RELATIONS, Relation
from hlr_jax.models.relation import apply, embed_tables
from hlr_jax.training.objective import Covariance, Objective, completed_gradient, triplet_distances
from hlr_jax.training.rows import batch_gradient, gather_rows
from hlr_jax.training.state import Sizes, init_params
from hlr_jax.types import (
    HistoryIds,
    Params,
    PerExampleNegatives,
    SharedNegatives,
    TripletBatch,
)

# Tiny, so that the oracle's loops and numerical gradients are quick.
USERS, ITEMS, DIM, SLOTS, PLACES = 4, 10, 6, 4, 4

# Of the memories of a relation.
MEMORY: dict[str, tuple[Any, ...]] = {
    "slot_form": ("free", "centred", "orthogonal"),
    "slot_norm": (0.0, 0.8),
    "key_scale": (1.0, 1.7),
}

# Values that each option of a relation is tested with, alone and together.
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "cml": {},
    "cmlf": {},
    "lrml": MEMORY,
    "hlr": {
        "include_user": (True, False),
        "separate_user_memory": (False, True),
        "beta": (1.0, 0.5),
        **MEMORY,
    },
    "hlrpp": {"beta": (1.0, 0.5), **MEMORY},
    "adacml": {"beta": (1.0, 0.5)},
    # Most translated users leave the smaller ball, and none the larger.
    "history_mean": {"history_weight": (1.0, 0.5), "clip_translated": (1.0, 3.0)},
    "items_only": {},
    "nearest_items": {},
    "recent_items": {},
    "rotation": {},
    "multi_head": {"heads": (2, 3), **MEMORY},
    # Users' diversity is below, between and above the bounds.
    "dpcml": {
        "vectors": (2, 3),
        "diversity_weight": (10.0,),
        "min_diversity": (0.05, 0.9),
        "max_diversity": (1.2,),
    },
    "transcf": {"alpha_nbr": (0.1, 0.4), "alpha_dist": (0.1, 0.0)},
}
# Options that size, start or bound parameters, choose a program, or are of what is added to the
# loss of a step; they have tests of their own.
NOT_IN_RELATION = {
    "slots",
    "clip_memory",
    "clip_key",
    "similarity_weight",
    "feature_weight",
    "feature_hidden",
    "implementation",
    "rank",
    "start_weight",
    "start_temperature",
    "start_decay",
}

# Each registered geometry, of the library and of the oracle.
GEOMETRIES: dict[str, tuple[Geometry, oracles.Geometry]] = {
    "ball": (Ball(), oracles.Ball()),
    "sphere": (Sphere(radius=1.3), oracles.Sphere(1.3)),
    "lorentz": (Lorentz(curvature=0.7), oracles.Lorentz(0.7)),
}


def variants(name: str) -> list[dict[str, Any]]:
    """The options that a model is tested with; the first are the defaults."""
    choices = CHOICES.get(name, {})
    every = list(itertools.product(*choices.values()))
    if len(choices) > 2:
        every = covering(every)
    return [dict(zip(choices, values, strict=True)) for values in every]


def covering(every: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The first combination, and others until each pair of values is in one of them."""

    def pairs(values: tuple[Any, ...]) -> set[Any]:
        return set(itertools.combinations(enumerate(values), 2))

    chosen, missing = [every[0]], set[Any]().union(*map(pairs, every)) - pairs(every[0])
    while missing:
        chosen.append(max(every, key=lambda values: len(pairs(values) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


NO_ORACLE = pytest.mark.skip(
    reason="no oracle: add the relation to tests/oracles and its options to CHOICES in cases.py"
)


def with_options(name: str, options: dict[str, Any], *more: Any) -> Any:
    """The parameter of a test."""
    return pytest.param(
        *(name, options, *more),
        id="-".join([name, *map(str, options.values()), *map(str, more)]),
        marks=() if name in CHOICES else NO_ORACLE,
    )


VARIANTS = [with_options(name, x) for name in RELATIONS.names() for x in variants(name)]
# Each variant in the ball, and the default options of each model elsewhere.
VARIANTS_IN_GEOMETRIES = [
    with_options(name, options, geometry)
    for geometry in GEOMETRIES
    for name in RELATIONS.names()
    for options in (variants(name) if geometry == "ball" else variants(name)[:1])
]


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """Check that the largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


class Setting(NamedTuple):
    """What is minimised, in the library's form and in the oracle's.

    Attributes:
      loss: of a row.
      copy_relation, reduction: as in `Objective`.
      covariance: weight of the penalty on the covariance of all rows.
    """

    loss: Loss
    copy_relation: bool = False
    reduction: str = "sum"
    covariance: float = 0.0

    def objective(self, model: Relation) -> Objective:
        """For the library."""
        penalties = (Covariance(self.covariance, "off_diagonal"),) if self.covariance else ()
        return Objective(
            model,
            self.loss,
            penalties,
            num_items=ITEMS,
            copy_relation=self.copy_relation,
            reduction=self.reduction,
        )


def loss_name(loss: Loss) -> str:
    """By which a configuration asks for it."""
    return next(name for name in LOSSES.names() if LOSSES.get(name) is type(loss))


def numbers_of(loss: Loss) -> dict[str, float]:
    """The options of a loss, by the oracle's names."""
    return {field.name: getattr(loss, field.name) for field in dataclasses.fields(loss)}


class Everything(NamedTuple):
    """What the library computes of a case."""

    distances: Any
    loss: Any
    terms: Any
    gradient: Any
    scores: Any


class Case:
    """Random parameters and a batch, in the oracle's form and in the library's.

    The batch has a full, two short and an empty history, negatives that do not count, and ends in
    a row of padding.
    """

    users = np.array([0, 1, 2, 3, 1])
    history = np.array(
        [[1, 2, 3, 4], [5, -1, -1, -1], [-1, -1, -1, -1], [-1, 6, 0, -1], [7, 8, 9, -1]]
    )
    row_mask = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    items = np.array([[5, 7, 3, 1], [2, 0, 9, 6], [4, 8, 1, 2], [9, 3, 2, 7], [6, 1, 4, 0]])
    negative_mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]], bool)
    # Who is whose neighbour; the last user and some items have none.
    pairs = ((0, 1), (0, 2), (0, 5), (0, 9), (1, 5), (1, 2), (1, 7), (2, 4), (2, 2))

    def __init__(self, name: str, options: Mapping[str, Any], geometry: str = "ball") -> None:
        rng = np.random.default_rng(5)
        sizes = {"slots": SLOTS} if "slots" in RELATIONS.options(name) else {}
        self.name, self.options = name, dict(options)
        own, self.geometry = GEOMETRIES[geometry]
        self.model = RELATIONS.build(name, {**sizes, **options}, dim=DIM, geometry=own)
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
            "negatives": self.items[:, 1:],
            "negative_mask": self.negative_mask,
            "history": self.history,
            "row_mask": self.row_mask,
        }
        self.neighbours: dict[str, np.ndarray] = {}
        if self.model.uses_neighbours:
            # Of the parameters as they are now; in a gradient they stay what they are.
            means = oracles.transcf_neighbours(self.params, self.pairs, self.geometry)
            self.neighbours = dict(zip(("user", "item"), means, strict=True))
            self.batch |= self.neighbours_of(self.batch)

    def neighbours_of(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the oracle reads of neighbours for a batch."""
        return {
            "user_neighbours": self.neighbours["user"][batch["users"]],
            "positive_neighbours": self.neighbours["item"][batch["positives"]],
            "negative_neighbours": self.neighbours["item"][batch["negatives"]],
        }

    def with_shared(self, items: Sequence[int]) -> dict[str, Any]:
        """The oracle's batch whose rows all have these items as negatives."""
        batch = {**self.batch, "negatives": np.tile(items, (len(self.users), 1))}
        batch.pop("negative_mask")
        return batch | (self.neighbours_of(batch) if self.neighbours else {})

    # --- the library's forms -----------------------------------------------------------------

    def jax_params(self, dtype: Any = jnp.float32) -> Params:
        return as_jax_params(self.params, dtype)

    def read_params(self, dtype: Any = jnp.float32) -> Params:
        """What the model reads of parameters: rows followed by the means of their neighbours."""
        return widened(self.jax_params(dtype), self.means(dtype))

    def means(self, dtype: Any = jnp.float32) -> dict[str, Any]:
        return {name: jnp.asarray(x, dtype) for name, x in self.neighbours.items()}

    def history_ids(self, rows: slice = slice(None)) -> HistoryIds:
        if not self.model.uses_history:
            return HistoryIds.empty(len(self.history[rows]))
        return as_histories(self.history[rows])

    def jax_batch(self, dtype: Any = jnp.float32) -> TripletBatch:
        return TripletBatch(
            jnp.asarray(self.users, jnp.int32),
            jnp.asarray(self.items[:, 0], jnp.int32),
            PerExampleNegatives(
                jnp.asarray(self.items[:, 1:], jnp.int32), jnp.asarray(self.negative_mask)
            ),
            self.history_ids(),
            jnp.asarray(self.row_mask, dtype),
        )

    def shared_batch(
        self, items: Sequence[int], mask: ArrayLike, weight: ArrayLike, dtype: Any = jnp.float32
    ) -> TripletBatch:
        """A batch whose rows share these items."""
        shared = SharedNegatives(jnp.asarray(items, jnp.int32), jnp.asarray(mask, bool))
        batch = self.jax_batch(dtype)._replace(weight=jnp.asarray(weight, dtype))
        return batch._replace(negatives=shared)

    def everything(self, setting: Setting) -> Everything:
        """Distances, loss, gradient and scores of all items, in double precision."""
        with jax.enable_x64(True):
            objective, dtype = setting.objective(self.model), jnp.float64
            arguments = self.jax_params(dtype), self.means(dtype), self.jax_batch(dtype)
            found = _everything(objective, *arguments, self.history_ids())
            found = jax.tree.map(np.asarray, found)
        return found._replace(gradient=as_oracle_params(found.gradient))

    # --- the oracle's values -----------------------------------------------------------------

    def loss(self, params: Mapping[str, np.ndarray], setting: Setting) -> float:
        """The oracle's; it must be smooth here, or a gradient would say nothing."""
        return oracles.batch_loss(
            dict(params),
            self.batch,
            self.name,
            {**self.options, "copy_relation": setting.copy_relation},
            self.geometry,
            name=loss_name(setting.loss),
            reduction=setting.reduction,
            covariance_weight=setting.covariance,
            **numbers_of(setting.loss),
        )

    def distances(self, copy_relation: bool, batch: Mapping[str, Any] | None = None) -> np.ndarray:
        """To positives and negatives, `[B, 1 + K]`."""
        options = {**self.options, "copy_relation": copy_relation}
        batch = batch or self.batch
        found = oracles.batch_distances(self.params, batch, self.name, options, self.geometry)
        return np.column_stack(found)

    def scores(self) -> np.ndarray:
        """Of each row's user and history, and every item."""
        means = {f"{kind}_neighbours": means for kind, means in self.neighbours.items()}
        users, histories = self.users.tolist(), self.history.tolist()
        options = self.options | means
        return oracles.rank_scores(self.params, users, histories, self.name, options, self.geometry)

    def check_hinges(self, setting: Setting) -> None:
        """Check that some hinges are active and some are not, and none is near its kink."""
        distances = self.distances(setting.copy_relation)[self.row_mask == 1]
        hinge = distances[:, :1] - distances[:, 1:] + setting.loss.margin
        hinge = hinge[self.negative_mask[self.row_mask == 1]]
        assert np.abs(hinge).min() > 1e-4
        assert 0 < (hinge > 0).sum() < hinge.size


@jax.jit
def _everything(
    objective: Objective, params: Params, means: Params, batch: TripletBatch, ids: HistoryIds
) -> Everything:
    model, read = objective.model, widened(params, means)
    zeros = jax.tree.map(jnp.zeros_like, params)
    gradient, (loss, terms) = batch_gradient(objective, read, batch, batch.row_ids(), zeros)
    points = embed_tables(model, read)
    rows = gather_rows(points, batch.row_ids())
    distances, _ = triplet_distances(objective, params["relation"], rows, batch)
    users, items = points["user"][batch.users], points["item"]
    scores = apply(model, params["relation"], "scores", users, items, items, ids)
    complete = completed_gradient(objective, gradient, terms, params, jnp.asarray(0))
    return Everything(distances, loss, terms, complete, scores)


def widened(params: Params, means: Params) -> Params:
    """Rows of tables followed by the means of their neighbours, where there are any."""
    wide = {name: jnp.concatenate([params[name], x], axis=1) for name, x in means.items()}
    return params | wide


def shapes_of(model: Relation) -> dict[str, tuple[int, ...]]:
    """Of the relation's own parameters."""
    params = jax.eval_shape(lambda key: init_params(key, model, Sizes(2, 2)), jax.random.key(0))
    return {name: x.shape for name, x in params["relation"].items()}


def as_jax_params(params: Mapping[str, np.ndarray], dtype: Any = jnp.float32) -> Params:
    """`{"user", "item", "relation": {...}}` of the oracle's flat parameters."""
    arrays = {name: jnp.asarray(value, dtype) for name, value in params.items()}
    tables = {name: arrays.pop(name) for name in ("user", "item")}
    return {**tables, "relation": arrays}


def as_oracle_params(params: Params) -> dict[str, np.ndarray]:
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {name: np.asarray(value, np.float64) for name, value in flat.items()}


def as_histories(items: np.ndarray) -> HistoryIds:
    return HistoryIds(jnp.asarray(np.maximum(items, 0), jnp.int32), jnp.asarray(items >= 0))

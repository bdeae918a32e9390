"""Models of each kind over a small catalogue, and rankers for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support.interactions import interactions

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.geometry import Geometry
from hlr_jax.models import RELATIONS, Relation
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.histories import HistoryDraw, UniformChoice
from hlr_jax.training import state
from hlr_jax.types import Params

USERS, ITEMS, DIM = 12, 23, 6
LONGEST = 4
KEY = jax.random.key(0)
BALL = Ball()

Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "cml": ("cml", {}),
    "cmlf": ("cmlf", {}),
    "dpcml": ("dpcml", {"vectors": 3}),
    "lrml": ("lrml", {"slots": 4}),
    "history_mean": ("history_mean", {"history_weight": 0.8}),
    "items_only": ("items_only", {}),
    "nearest_items": ("nearest_items", {}),
    "recent_items": ("recent_items", {}),
    "rotation": ("rotation", {}),
    "multi_head": ("multi_head", {"slots": 4, "heads": 3}),
    "adacml": ("adacml", {"beta": 0.7}),
    "transcf": ("transcf", {}),
    "hlr": ("hlr", {"slots": 4, "beta": 0.7}),
    "hlr-without-user": ("hlr", {"slots": 4, "include_user": False}),
    "hlr-separate": ("hlr", {"slots": 4, "separate_user_memory": True, "beta": 0.6}),
    "hlrpp": ("hlrpp", {"slots": 4, "beta": 0.8}),
}
# One of each model.
MODELS = [name for name in CASES if "-" not in name]


@functools.cache
def known(items: int = ITEMS) -> Interactions:
    """Up to 4 items a user; the first has none."""
    generator = np.random.default_rng(1)
    sizes = [0, LONGEST, 1, *generator.integers(1, LONGEST + 1, USERS - 3).tolist()]
    return interactions([generator.permutation(items)[:size].tolist() for size in sizes], items)


def build(case: Case, geometry: Geometry = BALL, items: int = ITEMS) -> tuple[Relation, Params]:
    """A model whose relations are as long as its rows, so that they matter."""
    name, options = case
    model = RELATIONS.build(name, options, dim=DIM, geometry=geometry)
    rows = state.Sizes(USERS, items)
    shapes = jax.eval_shape(lambda: state.init_params(jax.random.key(0), model, rows))
    generator = np.random.default_rng(2)

    def draw(x: jax.ShapeDtypeStruct, scale: float) -> jax.Array:
        return jnp.asarray(scale * generator.normal(size=x.shape), x.dtype)

    tables = {table: draw(shapes[table], DIM**-0.5) for table in ("user", "item")}
    relation = jax.tree.map(lambda x: draw(x, 2 * DIM**-0.5), shapes["relation"])
    return model, {**tables, "relation": relation}


def ranker(model: Relation, params: Params, batch_size: int = USERS, **draw: Any) -> Ranker:
    """With whole histories, if the model reads any, unless `draw` says otherwise."""
    length = LONGEST if model.uses_history else 0
    how = dataclasses.replace(HistoryDraw(UniformChoice(), KEY, length), **draw)
    return Ranker(
        model, params, Placement.replicated(1, USERS, len(params["item"])), how, batch_size
    )

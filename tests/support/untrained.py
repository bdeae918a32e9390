"""Recommenders with random parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from support.small_runs import config_of, data_for

from hlr_jax.config import build
from hlr_jax.models.registry import RELATIONS
from hlr_jax.registry import is_own
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training.inputs import make_objective
from hlr_jax.training.state import Keys, new_params

# Names of the library's own models.
OWN_MODELS = [name for name in RELATIONS.names() if is_own(RELATIONS.get(name))]


def untrained(model: str, options: dict[str, Any] | None = None) -> Recommender:
    """A model with random parameters, whose relations are no constants."""
    config, data = config_of(model, options), data_for(model)
    relation = build.build_model(config)
    placement = experiment.Placement.of(config.sharding, relation, data.num_users, data.num_items)
    objective = make_objective(config, relation, data.num_items, data.features)
    params = new_params(Keys.of(3).init, objective, placement, data.num_features)
    # Large ones, so that attention is far from uniform; items of different lengths, because from
    # the origin all that lie on the ball's surface are equally far.
    params = jax.tree.map(lambda x: 2.0 * x, params)
    params["item"] *= jnp.linspace(0.8, 1.0, data.num_items)[:, None]
    return Recommender.of(config, data, relation, params)

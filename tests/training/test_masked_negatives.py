"""Negatives that do not count: no loss, no gradient, and no NaN."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.interactions import draw_batch, interactions, sampling_source, training_source
from support.small_runs import config_of

from hlr_jax.config import LossConfig, SamplingConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.functional.losses import LOSSES
from hlr_jax.models.cml import CML
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.batches import Drawing
from hlr_jax.sampling.samplers import FullCatalog, Shared
from hlr_jax.sampling.sources import UserSource
from hlr_jax.training.objective import Objective
from hlr_jax.training.rows import batch_gradient
from hlr_jax.training.state import Sizes, init_params
from hlr_jax.types import Batch, Params

# The first user has seen everything.
SEEN = interactions([list(range(10)), [1, 2, 7]], 10)
PARAMS = jax.jit(lambda: init_params(jax.random.key(0), CML(4), Sizes(2, 10)))
ROWS = {"full": list(range(10)), "all": list(range(13)), "other": list(range(10, 13))}


@jax.jit
def gradient_of(objective: Objective, params: Params, batch: Batch) -> tuple:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return batch_gradient(objective, params, batch, batch.row_ids(), zeros)


def padded(rows: list[int], size: int) -> jax.Array:
    return jnp.asarray(rows + [-1] * (size - len(rows)), jnp.int32)


def apart_from_all(params: Params) -> float:
    """Squared distances of the first user to all items together."""
    user, items = np.asarray(params["user"][0]), np.asarray(params["item"])
    return float(np.square(user - items).sum())


@pytest.mark.parametrize("sampling", ["shared", "full_catalog"])
@pytest.mark.parametrize("name", LOSSES.names())
def test_a_user_who_has_seen_everything_adds_nothing(name, sampling):
    sampler = FullCatalog() if sampling == "full_catalog" else Shared(num_negatives=10)
    objective = Objective(CML(4), LOSSES.build(name, {}), num_items=10)
    params, source = PARAMS(), training_source(SEEN)
    draw = functools.partial(draw_batch, Drawing(sampler), source, key=jax.random.key(1))
    of_full, of_all, of_other = (
        gradient_of(objective, params, draw(rows=padded(ROWS[rows], 13)))
        for rows in ("full", "all", "other")
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((of_full, of_all)))
    _, (loss, _) = of_full
    if name == "contrastive":
        # It pulls positives whether there are negatives or not.
        np.testing.assert_allclose(loss, apart_from_all(params), rtol=1e-5)
    else:
        assert loss == 0
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(of_full[0]))
    # The other user's interactions count as they do without.
    together = jax.tree.map(jnp.add, of_full, of_other)
    for x, y in zip(*map(jax.tree.leaves, (together, of_all)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert of_other[1][0] > 0


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_batch_of_users_has_one_who_has_seen_everything(name):
    objective = Objective(CML(4), LOSSES.build(name, {}), num_items=10)
    source = UserSource.of_training(sampling_source(SEEN), SEEN)
    batch = draw_batch(Drawing(FullCatalog()), source, padded([0], 2), jax.random.key(0))
    params = PARAMS()
    gradient, (loss, _) = gradient_of(objective, params, batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    expected = apart_from_all(params) if name == "contrastive" else 0
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_validation_loss_without_any_negative_that_counts_is_zero():
    """The one user has all items that there are: no term, and no division by none."""
    train, valid = interactions([[0, 1, 2]], 4), interactions([[3]], 4)
    dataset = Dataset("tiny", train, valid, train, np.arange(1), np.arange(4))
    placement = Placement.replicated(1, 1, 4)
    tables = jax.jit(lambda: init_params(jax.random.key(0), CML(3), Sizes(1, 4)))()
    for name in ("hinge", "softmax"):
        config = dataclasses.replace(
            config_of(),
            sampling=SamplingConfig(negatives="shared", options={"num_negatives": 2}),
            loss=LossConfig(name=name),
        )
        params = placement.params(tables)
        assert Recommender(config, dataset, CML(3), params, placement).validation_loss() == 0

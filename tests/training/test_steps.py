"""Steps: the loss falls, each term counts once, and a compiled epoch is its single steps."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.small_runs import (
    BATCH,
    ITEMS,
    STEPS,
    USERS,
    Run,
    assert_same,
    config_of,
    draw_batch,
    epoch_order,
    planted,
    with_loss,
)

from hlr_jax.config import SamplingConfig
from hlr_jax.models.registry import RELATIONS
from hlr_jax.parallel.layout import ALONE
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.epoch_order import num_steps
from hlr_jax.sampling.sources import TripletSource
from hlr_jax.training.epoch import Recipe
from hlr_jax.training.inputs import validation_positives
from hlr_jax.training.neighbours import Neighbours, NoNeighbours, neighbours_for
from hlr_jax.training.objective import Objective
from hlr_jax.training.rows import loss_of_batch
from hlr_jax.training.state import Keys, TrainState
from hlr_jax.training.step import train_step
from hlr_jax.types import Params, TripletBatch

MODELS = [name for name in RELATIONS.names() if name != "adacml"]


@functools.cache
def run_of(model: str) -> Run:
    return Run.of(config_of(model))


@jax.jit
def single_step(
    state: TrainState,
    recipe: Recipe,
    source: TripletSource,
    rows: jax.Array,
    neighbours: Neighbours | NoNeighbours,
) -> TrainState:
    batch = draw_batch(recipe.drawing, source, rows, jax.random.key(8))
    exchange = recipe.exchange(state.params, ALONE)
    args = (state, batch, recipe.objective, recipe.optimizer, exchange, neighbours)
    return train_step(*args)[0]


@pytest.mark.parametrize("model", MODELS)
def test_the_compiled_loop_is_single_steps(model):
    run = run_of(model)
    order = jnp.asarray(run.order())
    neighbours = neighbours_for(run.model, run.source.history, ITEMS)
    one_device = jax.tree.map(np.asarray, run.source)
    state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), run.state())
    for step in range(STEPS):
        state = single_step(state, run.recipe, one_device, order[step], neighbours)
    looped = run.steps(run.state(), 0, STEPS)
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_falls_on_planted_data(model):
    run = run_of(model)
    state, losses = run.state(), []
    for epoch in range(10):
        key = jax.random.fold_in(jax.random.key(3), epoch)
        order = epoch_order(key, len(run.program.positives), BATCH)
        state = run.steps(state.with_new_sums(), 0, STEPS, run.rows(1, order, key))
        losses.append(state.mean_loss())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_steps_in_pieces_are_steps_at_once(model):
    run = run_of(model)
    whole = run.steps(run.state(), 0, STEPS)
    for cuts in ([0, 5, STEPS], [0, 1, 1, 2, 7, STEPS], list(range(STEPS + 1))):
        state = run.state()
        for start, stop in itertools.pairwise(cuts):
            state = run.steps(state, start, stop)
        assert_same(state, whole)


@pytest.mark.parametrize(("batch_size", "negatives"), [(13, 2), (144, 1), (1000, 3), (1, 1)])
def test_every_triplet_counts_once_per_epoch(batch_size, negatives):
    run = Run.of(config_of(batch_size=batch_size, negatives=negatives))
    state = run.steps(run.state(), 0, num_steps(144, batch_size))
    assert float(state.loss_terms) == 144 * negatives
    assert int(state.step) == -(-144 // batch_size)
    assert float(state.with_new_sums().loss_terms) == 0
    assert float(state.with_new_sums().loss_sum) == 0


# --- against the equations -----------------------------------------------------------------------


def test_without_sampling_the_squared_margin_is_sfcml_s_loss():
    """Users alike and all their pairs: one batch of everything, against the oracle's loops."""
    config = with_loss(config_of("cml"), "sfcml", 0.4, user_weight_exponent=1.0)
    run = Run.of(dataclasses.replace(config, sampling=SamplingConfig(negatives="full_catalog")))
    rows, params = jnp.arange(144, dtype=jnp.int32), run.params()

    @jax.jit
    def total(params: Params, objective: Objective, batch: TripletBatch) -> jax.Array:
        return loss_of_batch(objective, params, batch)[0]

    batch = draw_batch(run.recipe.drawing, run.source, rows, jax.random.key(0))
    liked = [set(planted().train.of(user).tolist()) for user in range(USERS)]
    expected = oracles.sampling_free_loss(params["user"], params["item"], liked, 0.4)
    found = total(params, run.recipe.objective, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "loss", "margin", "copy_relation"),
    [
        ("cml", {}, "hinge", 0.5, False),
        ("cml", {}, "warp", 0.5, False),
        ("lrml", {}, "hinge", 1.5, False),
        ("hlr", {"beta": 0.7}, "hinge", 0.5, False),
        ("hlr", {"separate_user_memory": True}, "hinge", 0.5, True),
        ("hlrpp", {}, "hinge", 0.5, False),
    ],
)
def test_the_validation_loss_is_the_mean_of_what_is_drawn(
    model, options, loss, margin, copy_relation
):
    config = config_of(model, options, negatives=3)
    config = with_loss(config, loss, margin, copy_relation=copy_relation)
    run = Run.of(config)
    placement, params = run.on(1), run.params()
    measured = Recommender(config, planted(), run.model, params, placement)

    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    flat = {name: np.asarray(value, np.float64) for name, value in flat.items()}
    rows = np.full(2 * BATCH, -1, np.int32)
    rows[:USERS] = np.arange(USERS)  # One validation pair per user.
    source = validation_positives(placement, planted(), config).source
    total = 0.0
    for part in rows.reshape(2, BATCH):
        key = placement.put(Keys.of(config.seed).valid)
        drawn = draw_batch(run.recipe.drawing, source, placement.put(part), key)
        batch = {
            "users": np.asarray(drawn.users),
            "positives": np.asarray(drawn.positives),
            "negatives": np.asarray(drawn.negatives.items),
            "row_mask": np.asarray(drawn.weight),
        }
        if run.model.uses_history:
            batch["history"] = np.where(drawn.history.mask, drawn.history.items, -1)
        total += oracles.batch_loss(
            flat,
            batch,
            model,
            options | {"copy_relation": copy_relation},
            name=loss,
            margin=margin,
        )
    terms = USERS * (1 if loss == "warp" else 3)
    np.testing.assert_allclose(measured.validation_loss(), total / terms, rtol=1e-4)

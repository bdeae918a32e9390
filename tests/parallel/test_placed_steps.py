"""However the steps of a run are spread over devices, its numbers are the same."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import oracles
import pytest
from support.placed_runs import (
    BATCH,
    assert_close,
    config_of,
    data,
    oracle_params,
    placed,
    recommender,
    start,
    trained,
    used,
)

from hlr_jax.config import Config, GeometryConfig, LossConfig, OptimizerConfig, SamplingConfig
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.batches import draw_batch
from hlr_jax.training.epoch import advance
from hlr_jax.training.inputs import shuffled_rows, training_positives


@functools.cache
def alone(name: str, update: str) -> tuple[list[np.ndarray], list[float]]:
    """One device's result."""
    placement = placed("replicated", 1)
    state, losses = trained(config_of(name, update), placement, 100)
    assert losses[-1] < 0.8 * losses[0]
    return used(state, placement), losses


# Of each way to spread and each exchange at least one, over models of all kinds.
@pytest.mark.parametrize(
    ("name", "update", "mode", "count", "shards"),
    [
        ("cml", "dense", "users", 4, 1),
        ("cml", "dense", "both", 4, 2),
        ("cml", "sparse", "replicated", 8, 1),
        ("cml", "sparse", "everywhere", 2, 1),
        ("cml", "sparse", "users", 8, 1),
        ("cml", "sparse", "both", 8, 4),
        ("lrml", "dense", "both", 8, 8),
        ("hlr", "dense", "everywhere", 4, 1),
        ("hlr", "dense", "users", 8, 1),
        ("hlr", "sparse", "both", 2, 2),
        ("hlrpp", "sparse", "users", 2, 1),
        ("transcf", "dense", "replicated", 8, 1),
        ("transcf", "sparse", "everywhere", 4, 1),
        ("items_only", "dense", "users", 4, 1),
        ("items_only", "sparse", "both", 8, 2),
        ("dpcml", "dense", "users", 4, 1),
        ("dpcml", "sparse", "both", 8, 2),
    ],
)
def test_100_steps_are_those_of_one_device(name, update, mode, count, shards):
    placement = placed(mode, count, shards)
    state, losses = trained(config_of(name, update), placement, 100)
    expected, expected_losses = alone(name, update)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_close(used(state, placement), expected)


BY_FREQUENCY = OptimizerConfig(
    name="adamw", learning_rate=0.05, weight_decay=0.5, weight_decay_exponent=0.5
)


@functools.cache
def decayed(update: str, mode: str, count: int, shards: int) -> list[np.ndarray]:
    """The arrays after 20 steps in which rows decay by their frequency."""
    config = config_of(optimizer=dataclasses.replace(BY_FREQUENCY, updates=update))
    placement = placed(mode, count, shards)
    return used(trained(config, placement, 20)[0], placement)


@pytest.mark.parametrize(
    ("update", "mode", "count", "shards"),
    [
        ("dense", "replicated", 2, 1),
        ("sparse", "everywhere", 4, 1),
        ("dense", "users", 4, 1),
        ("dense", "both", 4, 2),
        ("sparse", "both", 4, 4),
    ],
)
def test_rows_decay_by_their_frequency_wherever_they_are(update, mode, count, shards):
    assert_close(decayed(update, mode, count, shards), decayed(update, "replicated", 1, 1))


def test_frequencies_are_of_training_interactions_and_where_their_rows_are():
    placement = placed("both", 4, 2)
    state, _ = start(config_of(optimizer=BY_FREQUENCY), placement)
    frequency = state.opt_state[1].frequency
    train = data().train
    for name, rows in (("user", train.users), ("item", train.items)):
        counts = np.bincount(rows, minlength=placement.num_rows[name])
        expected = counts / counts[counts > 0].mean()
        np.testing.assert_allclose(np.asarray(frequency[name])[:, 0], expected, rtol=1e-6)
        assert frequency[name].sharding == state.params[name].sharding
        assert expected.max() > 1.5


# --- negatives that a batch shares, and batches of users ------------------------------------------


FULL = SamplingConfig(negatives="full_catalog")
SHARED: dict[str, tuple[SamplingConfig, LossConfig]] = {
    "cml": (FULL, LossConfig(name="softmax")),
    "cml of users": (
        FULL,
        LossConfig(name="softmax", user_weight_exponent=0.5, reduction="mean"),
    ),
    "lrml": (
        SamplingConfig(
            negatives="shared", options={"num_negatives": 9, "popularity_exponent": 0.75}
        ),
        LossConfig(name="softmax", user_weight_exponent=0.5, reduction="mean"),
    ),
    "hlr": (
        SamplingConfig(negatives="shared", history_length=3, options={"num_negatives": 9}),
        LossConfig(name="softmax"),
    ),
    "hlr of users": (
        SamplingConfig(negatives="full_catalog", history_length=3),
        LossConfig(name="softmax"),
    ),
    "adacml of users": (
        SamplingConfig(negatives="shared", history_length=3, options={"num_negatives": 15}),
        LossConfig(name="hinge"),
    ),
}


def trained_with_shared(
    name: str, update: str, placement: Placement
) -> tuple[list[np.ndarray], list[float]]:
    """All arrays after 100 steps, the loss of each epoch, and that of validation."""
    sampling, loss = SHARED[name]
    config = config_of(name.removesuffix(" of users"), update, sampling=sampling, loss=loss)
    if name.endswith(" of users"):
        by_user = dataclasses.replace(config.training, batch_of="users", batch_size=12)
        config = dataclasses.replace(config, training=by_user)
    state, losses = trained(config, placement, 100)
    measured = recommender(config, placement, state)
    return used(state, placement), [*losses, measured.validation_loss()]


alone_with_shared = functools.cache(
    lambda name, update: trained_with_shared(name, update, placed("replicated", 1))
)


@pytest.mark.parametrize(
    ("name", "update", "mode", "count", "shards"),
    [
        ("cml", "dense", "users", 4, 1),
        ("cml of users", "sparse", "users", 4, 1),
        ("cml of users", "dense", "both", 4, 2),
        ("lrml", "sparse", "replicated", 4, 1),
        ("lrml", "sparse", "both", 8, 4),
        ("hlr", "sparse", "both", 2, 2),
        ("hlr of users", "dense", "replicated", 4, 1),
        ("hlr of users", "dense", "both", 4, 2),
        ("adacml of users", "sparse", "users", 4, 1),
        ("adacml of users", "sparse", "both", 4, 4),
    ],
)
def test_100_steps_with_shared_negatives_are_those_of_one_device(name, update, mode, count, shards):
    """The catalogue and samples, by popularity and not, with weights of users; so is the mean loss.

    And batches of users.
    """
    found, losses = trained_with_shared(name, update, placed(mode, count, shards))
    expected, expected_losses = alone_with_shared(name, update)
    assert expected_losses[-2] < 0.95 * expected_losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_close(found, expected)


# --- what is added up over devices ----------------------------------------------------------------


# 2 and 3 devices get unequal parts of 7 rows; of 8 devices one gets none.
@pytest.mark.parametrize(
    ("name", "update", "loss", "count"),
    [
        ("cml", "dense", {"name": "warp", "covariance": 0.1}, 2),
        ("cml", "dense", {"name": "warp", "uniformity": 5.0}, 3),
        ("cml", "sparse", {"name": "warp"}, 8),
        ("lrml", "sparse", {"reduction": "mean"}, 3),
        ("hlr", "dense", {"reduction": "mean"}, 8),
        ("hlrpp", "sparse", {"copy_relation": True}, 3),
    ],
)
def test_n_devices_take_unequal_parts_of_a_batch(name, update, loss, count):
    config = config_of(name, update, loss=LossConfig(**loss))
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_size=7)
    )
    one_part = (dataclasses.replace(placed("replicated", n), parts=1) for n in (1, count))
    single, several = one_part
    expected, found = trained(config, single, 7)[0], trained(config, several, 7)[0]
    rows = 49 if name == "cml" else 49 * 2
    assert float(expected.loss_terms) == float(found.loss_terms) == rows
    assert int(expected.step) == int(found.step) == 7
    assert_close(used(found, several), used(expected, single))


@pytest.mark.parametrize(("mode", "count"), [("replicated", 2), ("everywhere", 4)])
def test_devices_draw_the_same_rows_for_a_penalty(mode, count):
    """Of tables larger than a step takes of them; other rows in each step."""

    def arrays(placement: Placement, most: int) -> list[np.ndarray]:
        config = config_of(loss=LossConfig(uniformity=5.0, name="warp"))
        state, recipe = start(config, placement)
        penalty = recipe.objective.regularizers[0].replace(most=most)
        objective = recipe.objective.replace(regularizers=(penalty,))
        positives = training_positives(placement, data(), config)
        rows = shuffled_rows(positives, BATCH, jax.random.key(4))
        recipe = recipe.replace(objective=objective)
        return used(advance(state, rows, (0, 5), recipe, placement), placement)

    expected = arrays(placed("replicated", 1), 10)
    assert_close(arrays(placed(mode, count), 10), expected)
    of_all = arrays(placed("replicated", 1), 1024)
    assert max(np.abs(x - y).max() for x, y in zip(of_all, expected, strict=True)) > 1e-3


@pytest.mark.parametrize(("mode", "shards"), [("users", 1), ("both", 2)])
def test_the_norm_that_gradients_are_clipped_by_is_of_all_rows(mode, shards):
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.5, gradient_clip=0.5)
    config = config_of(optimizer=optimizer)
    unclipped = config_of(optimizer=dataclasses.replace(optimizer, gradient_clip=1e9))
    single, several = placed("replicated", 1), placed(mode, 4, shards)
    expected = used(trained(config, single, 2)[0], single)
    free = used(trained(unclipped, single, 2)[0], single)
    assert np.abs(free[1] - expected[1]).max() > 0.01  # it matters
    assert_close(used(trained(config, several, 2)[0], several), expected)


# --- against the equations -----------------------------------------------------------------------


def test_a_step_of_sharded_tables_is_that_of_the_equations():
    """Plain gradient descent on HLR's loss, its gradient by differences of float64 loops."""
    dataset = data(20, 13)
    config = config_of(
        "hlr",
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
        geometry=GeometryConfig(options={"radius": 1e9}),
    )
    placement, key = placed("both", 8, 2, dataset), jax.random.key(4)
    state, recipe = start(config, placement)
    before = oracle_params(state, placement)
    positives = training_positives(placement, dataset, config)
    rows = shuffled_rows(positives, BATCH, key)
    after = advance(state, rows, (0, 1), recipe, placement)
    batch = batch_on_one_device(config, key)

    def loss(params: dict[str, np.ndarray]) -> float:
        return oracles.batch_loss(params, batch, "hlr", {}, margin=0.5)

    np.testing.assert_allclose(after.mean_loss() * float(after.loss_terms), loss(before), rtol=1e-5)
    gradient = oracles.numerical_gradient(loss, before)
    for name, x in oracle_params(after, placement).items():
        expected = before[name] - 0.1 * gradient[name]
        assert np.abs(gradient[name]).max() > 0.1
        np.testing.assert_allclose(x, expected, atol=1e-5)


def batch_on_one_device(config: Config, key: jax.Array) -> dict[str, Any]:
    """The first batch of an epoch, in the oracle's form."""
    dataset = data(20, 13)
    single = placed("replicated", 1, dataset=dataset)
    positives = training_positives(single, dataset, config)
    rows = shuffled_rows(positives, BATCH, key)
    drawing = start(config, single)[1].drawing
    batch = jax.jit(draw_batch)(drawing, rows.source, rows.order[0, 0], rows.key)
    return {
        "users": np.asarray(batch.users),
        "positives": np.asarray(batch.positives),
        "negatives": np.asarray(batch.negatives.items),
        "row_mask": np.asarray(batch.weight),
        "history": np.where(batch.history.mask, batch.history.items, -1),
    }

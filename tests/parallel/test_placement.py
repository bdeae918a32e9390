"""Where tables and interactions are, and what does not depend on it: losses, ranks, checkpoints."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from support.placed_runs import (
    BATCH,
    PARTS,
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

from hlr_jax.config import EvaluationConfig, OptimizerConfig, ShardingConfig, TrainingConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.parallel import layout
from hlr_jax.runs import experiment
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training.inputs import training_positives
from hlr_jax.training.state import state_shapes
from hlr_jax.training.store import Progress

# --- losses and ranks ----------------------------------------------------------------------------


@functools.cache
def measured(history: str, mode: str, count: int, shards: int) -> tuple[Any, ...]:
    """Validation loss, test metrics, and the best items that users have not seen."""
    config = config_of("hlr")
    sampling = dataclasses.replace(config.sampling, history=history)
    config = dataclasses.replace(config, sampling=sampling)
    placement = placed(mode, count, shards)
    measured = recommender(config, placement, start(config, placement)[0])
    # Users have up to 12 of the 41 items: the last places of their lists stay empty.
    known = data().train.union(data().valid)
    ids, scores = measured.top_k(np.arange(53, dtype=np.int32), 35, known)
    assert (ids == -1).any()
    assert not any(set(row.tolist()) & set(known.of(user)) for user, row in enumerate(ids))
    return measured.validation_loss(), measured.evaluate("test"), ids, scores


@pytest.mark.parametrize(
    ("mode", "count", "shards", "history"),
    [
        ("users", 3, 1, "uniform"),
        ("everywhere", 3, 1, "uniform"),
        ("both", 8, 4, "unpopular"),
        ("users", 3, 1, "recent"),
        ("both", 8, 4, "recent"),
    ],
)
def test_loss_and_ranking_do_not_depend_on_the_placement(mode, count, shards, history):
    loss, measures, ids, scores = measured(history, "replicated", 1, 1)
    found_loss, found_measures, found_ids, found_scores = measured(history, mode, count, shards)
    np.testing.assert_allclose(found_loss, loss, rtol=1e-6)
    assert found_measures == measures
    np.testing.assert_array_equal(found_ids, ids)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5)


@pytest.mark.parametrize("name", ["items_only", "recent_items"])
@pytest.mark.parametrize(("mode", "count", "shards"), [("users", 3, 1), ("both", 4, 2)])
def test_relations_by_user_are_trained_and_ranked_alike_wherever_they_are(
    name, mode, count, shards
):
    config, found = config_of(name), []
    if name == "recent_items":
        sampling = dataclasses.replace(config.sampling, history="recent")
        config = dataclasses.replace(config, sampling=sampling)
    for placement in (placed("replicated", 1), placed(mode, count, shards)):
        state, _ = trained(config, placement, 3)
        found.append(recommender(config, placement, state).evaluate("test"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("users", "batch", "mode", "count", "shards"),
    [
        pytest.param(53, BATCH, "users", 5, 1, id="parts that do not divide"),
        pytest.param(5, 4, "users", 8, 1, id="more devices than users"),
        pytest.param(2, 1, "both", 8, 2, id="empty shards and a batch of one"),
        pytest.param(14, 3, "both", 3, 3, id="a batch below the number of devices"),
    ],
)
def test_uneven_sizes_work(users, batch, mode, count, shards):
    dataset = data(users) if users > 2 else few_users()
    config = dataclasses.replace(config_of(), training=TrainingConfig(batch_size=batch, epochs=1))
    found = []
    for placement in (
        placed("replicated", 1, dataset=dataset),
        placed(mode, count, shards, dataset),
    ):
        state, losses = trained(config, placement, 4, dataset)
        metrics = recommender(config, placement, state, dataset).evaluate("test")
        found.append((oracle_params(state, placement), losses, metrics))
    assert found[1][2] == found[0][2]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
    assert_close(list(found[1][0].values()), list(found[0][0].values()))


def few_users() -> Dataset:
    """The first of two users has nothing but a test item."""

    def those(*pairs: tuple[int, int]) -> Interactions:
        return Interactions.from_pairs(*np.array(pairs).T, 2, 41)

    train = those((1, 3), (1, 8), (1, 9), (1, 40))
    return Dataset("few", train, those((1, 7)), those((0, 5)), np.arange(2), np.arange(41))


# --- who has what --------------------------------------------------------------------------------


def test_no_device_has_the_whole():
    config = config_of("hlr")
    placement = placed("both", 4, 2)
    state, _ = start(config, placement)
    positives = training_positives(placement, data(), config)
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    for tables in (state.params, moments):
        assert {s.data.shape for s in tables["user"].addressable_shards} == {(14, 5)}
        assert {s.data.shape for s in tables["item"].addressable_shards} == {(21, 5)}
    for x in (positives.source.items, positives.source.users):
        for shard in x.addressable_shards:
            assert shard.data.size < 0.5 * len(data().train)
    # What a source has twice is on a device once.
    assert positives.source.history.items is positives.source.seen.items


def test_all_placements_start_from_the_same_tables():
    config = config_of("lrml")
    expected = oracle_params(start(config, placed("replicated", 1))[0], placed("replicated", 1))
    for placement in (placed("replicated", 8), placed("users", 3), placed("both", 8, 4)):
        found = oracle_params(start(config, placement)[0], placement)
        for name, x in found.items():
            np.testing.assert_array_equal(x, expected[name])


# --- checkpoints ---------------------------------------------------------------------------------


SPREAD = [("replicated", 1, 1), ("replicated", 8, 1), ("users", 3, 1), ("both", 8, 4)]


@pytest.mark.parametrize("saved", SPREAD)
def test_a_checkpoint_of_any_placement_goes_on_in_any_other(tmp_path, saved):
    # With state of all shapes: moments as tables, a number for each row.
    optimizer = OptimizerConfig(name="adamw", weight_decay_exponent=0.5)
    config, progress = config_of(optimizer=optimizer), Progress(epochs=3, parts=PARTS)
    placement = placed(*saved)
    state, _ = trained(config, placement, 3)
    store = Checkpoints(tmp_path, placement.used_rows)
    store.save_best(state, progress)
    store.save(state, progress)
    for restored in SPREAD:
        other = placed(*restored)
        like, recipe = start(config, other)
        shapes = state_shapes(like.params, recipe.optimizer, other)
        found, found_progress = Checkpoints(tmp_path, other.used_rows).restore(shapes)
        assert found_progress == progress
        assert_close(used(found, other), used(state, placement), 0)
        for x, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(shapes), strict=True):
            assert x.sharding == wanted.sharding
        best = Checkpoints(tmp_path, other.used_rows).restore_best(shapes.params)
        np.testing.assert_array_equal(best["item"], found.params["item"])


def test_a_table_of_another_length_is_still_refused(tmp_path):
    placement = placed("users", 3)
    state, recipe = start(config_of(), placement)
    Checkpoints(tmp_path, placement.used_rows).save(state, Progress())
    rows = placement.used_rows | {"user": 54}  # of 56 with those that fill the shards up
    shapes = state_shapes(state.params, recipe.optimizer, placement)
    with pytest.raises(InputError, match=r"\['user'\] is \(53, 5\) and not \(54, 5\)"):
        Checkpoints(tmp_path, rows).restore(shapes)


def test_a_run_goes_on_sharded_as_it_would_have_replicated(tmp_path):
    def run(workdir: str, epochs: int, **sharding: Any) -> dict[str, np.ndarray]:
        config = dataclasses.replace(
            config_of(),
            training=TrainingConfig(batch_size=BATCH, epochs=epochs),
            sharding=ShardingConfig(user_parts=PARTS, **sharding),
        )
        found = experiment.train(config, tmp_path / workdir, data(), show_progress=False)
        loaded = Recommender.load(tmp_path / workdir, data())
        for rec in (found, loaded):
            expected = layout.BOTH_SHARDED if sharding else layout.REPLICATED
            assert rec.placement.layout == expected
        tables = {name: np.asarray(found.params[name]) for name in ("user", "item")}
        np.testing.assert_array_equal(np.asarray(loaded.params["user"]), tables["user"])
        return {name: x[: found.placement.used_rows[name]] for name, x in tables.items()}

    expected = run("uninterrupted", 4)
    run("changed", 2)
    found = run("changed", 4, tables="sharded", item_shards=2)
    assert_close(list(found.values()), list(expected.values()))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sharding", "fault"),
    [
        ({"item_shards": 3}, "config.sharding.item_shards=3: a process has 8 devices"),
        ({"user_parts": 5}, "config.sharding.user_parts=5: too few for 8 devices"),
    ],
)
def test_devices_that_cannot_be_divided_are_refused(tmp_path, sharding, fault):
    config = dataclasses.replace(config_of(), sharding=ShardingConfig(tables="sharded", **sharding))
    with pytest.raises(InputError, match=fault) as caught:
        experiment.train(config, tmp_path / "run", data(), show_progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_given_negatives_are_for_replicated_tables(tmp_path):
    evaluation = EvaluationConfig(protocol="sampled")
    config = dataclasses.replace(
        config_of(), sharding=ShardingConfig(tables="sharded"), evaluation=evaluation
    )
    negatives = np.zeros((53, 2), np.int32)
    dataset = dataclasses.replace(data(), given_negatives=negatives)
    fault = r"config\.evaluation\.protocol='sampled': .*replicated"
    with pytest.raises(InputError, match=fault):
        experiment.train(config, tmp_path / "run", dataset, show_progress=False)
    assert not (tmp_path / "run").exists()

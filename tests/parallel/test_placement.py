"""However a run is spread over devices, its numbers are the same."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import oracles
import pytest
from jax.sharding import Mesh

from hlr_jax import models
from hlr_jax.config import (
    Config,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models import relation as base
from hlr_jax.parallel import layout
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment, recommender
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling import batches as sampling
from hlr_jax.training import optimizers
from hlr_jax.training.loop import Progress
from hlr_jax.training.step import TrainState

PARTS, BATCH = 8, 30


@functools.cache
def data(users: int = 53, items: int = 41) -> Dataset:
    """Users with 0 to 12 interactions; neither number is divided by any number of devices."""
    rng = np.random.default_rng(0)
    pairs = [(user, i) for user in range(users) for i in rng.permutation(items)[: user % 13]]
    split = rng.random(len(pairs))

    def those(chosen: np.ndarray) -> Interactions:
        return Interactions.from_pairs(*np.array(pairs)[chosen].T, users, items)

    bounds = ((0, 0.7), (0.7, 0.85), (0.85, 1))
    parts = [those((split >= low) & (split < high)) for low, high in bounds]
    return Dataset("made up", *parts, np.arange(users), np.arange(items))


def has_slots(name: str) -> bool:
    return "slots" in base.options(base.get(name))


def config_of(name: str = "cml", rows: str = "all", **changes: Any) -> Config:
    config = Config(
        model=ModelConfig(name=name, dim=5, options={"slots": 3} if has_slots(name) else {}),
        sampling=SamplingConfig(negatives=2, history_length=3),
        loss=LossConfig(rank_weight=name == "cml"),
        optimizer=OptimizerConfig(learning_rate=0.01, rows=rows),
        training=TrainingConfig(batch_size=BATCH, epochs=2),
        evaluation=EvaluationConfig(cutoffs=(5,), bootstrap=0),
        sharding=ShardingConfig(user_parts=PARTS),
    )
    return dataclasses.replace(config, **changes)


def placed(mode: str, count: int, blocks: int = 1, dataset: Dataset | None = None) -> Placement:
    dataset = dataset or data()
    users, items = dataset.num_users, dataset.num_items
    if mode == "replicated":
        return Placement.replicated(count, users, items, PARTS)
    kinds = {"whole": layout.WHOLE, "users": layout.USERS_CUT, "both": layout.BOTH_CUT}
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, blocks), layout.MESH)
    return Placement(mesh, kinds[mode], users, items, PARTS)


@functools.cache
def model_of(config: ModelConfig) -> models.Relation:
    return models.build(config.name, config.dim, config.options)


# One optimizer for all that compiles to the same.
build_optimizer = functools.cache(optimizers.build)


def start(config: Config, placement: Placement) -> tuple[TrainState, Any]:
    model = model_of(config.model)
    params = placement.new_params(jax.random.key(0), model, config)
    optimizer = build_optimizer(config.optimizer, config.training, 1, placement.layout)
    return placement.state(params, optimizer), optimizer


def trained(
    config: Config, placement: Placement, steps: int, dataset: Dataset | None = None
) -> tuple[TrainState, list[float]]:
    """The state after so many steps, and the loss of each epoch."""
    state, optimizer = start(config, placement)
    positives = recommender.training_positives(placement, dataset or data(), config)
    batch_size = config.training.batch_size
    losses, done = [], 0
    while done < steps:
        key = jax.random.fold_in(jax.random.key(1), len(losses))
        order = placement.order(key, positives, batch_size)
        stop = min(order.shape[1], steps - done)
        state = placement.advance(
            *(state.with_new_sums(), positives.source, order, key, 0, stop),
            *(model_of(config.model), optimizer, config),
        )
        losses.append(state.mean_loss())
        done += stop
    return state, losses


def used(state: TrainState, placement: Placement) -> list[np.ndarray]:
    """All arrays, without the rows that fill blocks up."""
    arrays = []
    for x in jax.tree.leaves(state):
        unused = {placement.num_rows[name]: n for name, n in placement.used_rows.items()}
        rows = unused.get(x.shape[0], x.shape[0]) if x.ndim == 2 and x.shape[1] % 5 == 0 else None
        arrays.append(np.asarray(x)[:rows] if rows else np.asarray(x))
    return arrays


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        assert np.abs(x - y).max() <= bound * np.abs(y).max()


@functools.cache
def alone(name: str, rows: str) -> tuple[list[np.ndarray], list[float]]:
    """One device's result."""
    placement = placed("replicated", 1)
    state, losses = trained(config_of(name, rows), placement, 100)
    assert losses[-1] < 0.8 * losses[0]
    return used(state, placement), losses


@pytest.mark.parametrize(
    ("name", "rows", "mode", "count", "blocks"),
    [
        ("cml", "all", "replicated", 2, 1),
        ("cml", "all", "users", 4, 1),
        ("cml", "all", "both", 4, 2),
        ("cml", "touched", "replicated", 8, 1),
        ("cml", "touched", "whole", 2, 1),
        ("cml", "touched", "users", 8, 1),
        ("cml", "touched", "both", 8, 4),
        ("lrml", "all", "users", 2, 1),
        ("lrml", "all", "both", 8, 8),
        ("hlr", "all", "whole", 4, 1),
        ("hlr", "all", "users", 8, 1),
        ("hlr", "all", "both", 8, 2),
        ("hlr", "touched", "users", 4, 1),
        ("hlr", "touched", "both", 2, 2),
        ("hlrpp", "touched", "users", 2, 1),
        ("hlrpp", "touched", "both", 4, 4),
        ("transcf", "all", "replicated", 8, 1),
        ("transcf", "touched", "whole", 4, 1),
        ("dpcml", "all", "users", 4, 1),
        ("dpcml", "touched", "both", 8, 2),
    ],
)
def test_100_steps_are_those_of_one_device(name, rows, mode, count, blocks):
    placement = placed(mode, count, blocks)
    state, losses = trained(config_of(name, rows), placement, 100)
    expected, expected_losses = alone(name, rows)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_close(used(state, placement), expected)


POOLS = {
    "cml": (SamplingConfig(pool="catalogue"), LossConfig(name="softmax")),
    "cml of users": (
        SamplingConfig(pool="catalogue"),
        LossConfig(name="softmax", balance=0.5, reduction="mean"),
    ),
    "lrml": (
        SamplingConfig(negatives=9, pool="batch", skew=0.75),
        LossConfig(name="softmax", balance=0.5, reduction="mean"),
    ),
    "hlr": (SamplingConfig(negatives=9, pool="batch", history_length=3), LossConfig("softmax")),
}


def trained_with_pool(
    name: str, rows: str, placement: Placement
) -> tuple[list[np.ndarray], list[float]]:
    """All arrays after 100 steps, the loss of each epoch, and that of validation."""
    pool, loss = POOLS[name]
    config = config_of(name.removesuffix(" of users"), rows, sampling=pool, loss=loss)
    if name.endswith(" of users"):
        by_user = dataclasses.replace(config.training, batch_of="users", batch_size=12)
        config = dataclasses.replace(config, training=by_user)
    state, losses = trained(config, placement, 100)
    measured = Recommender(config, data(), model_of(config.model), state.params, placement)
    return used(state, placement), [*losses, measured.validation_loss()]


alone_with_pool = functools.cache(
    lambda name, rows: trained_with_pool(name, rows, placed("replicated", 1))
)


@pytest.mark.parametrize(
    ("name", "rows", "mode", "count", "blocks"),
    [
        ("cml", "all", "users", 4, 1),
        ("cml", "all", "both", 4, 2),
        ("cml of users", "touched", "users", 4, 1),
        ("cml of users", "all", "both", 4, 2),
        ("lrml", "touched", "replicated", 4, 1),
        ("lrml", "touched", "both", 8, 4),
        ("hlr", "touched", "both", 2, 2),
    ],
)
def test_100_steps_with_pools_are_those_of_one_device(name, rows, mode, count, blocks):
    """Catalogue and batch, by popularity and not, with balanced users; so is the mean loss.

    And users with all of their interactions at once.
    """
    found, losses = trained_with_pool(name, rows, placed(mode, count, blocks))
    expected, expected_losses = alone_with_pool(name, rows)
    assert expected_losses[-2] < 0.95 * expected_losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_close(found, expected)


def test_a_step_of_cut_tables_is_that_of_the_equations():
    """Plain gradient descent on HLR's loss, its gradient by differences of float64 loops."""
    config = config_of("hlr", optimizer=OptimizerConfig(name="sgd", learning_rate=0.1))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, clip_norm=1e9))
    placement = placed("both", 8, 2)
    state, optimizer = start(config, placement)
    before = oracle_params(state, placement)
    positives = recommender.training_positives(placement, data(), config)
    key = jax.random.key(4)
    order = placement.order(key, positives, BATCH)
    after = placement.advance(
        state, positives.source, order, key, 0, 1, model_of(config.model), optimizer, config
    )

    # The same batch, drawn on one device.
    single = placed("replicated", 1)
    whole = recommender.training_positives(single, data(), config)
    rows = single.order(key, whole, BATCH)[0, 0]
    batch = sampling.draw_batch(key, whole.source, rows, 2, 3)
    batch = {
        "users": np.asarray(batch.users),
        "positives": np.asarray(batch.items[:, 0]),
        "negatives": np.asarray(batch.items[:, 1:]),
        "row_mask": np.asarray(batch.weight),
        "history": np.where(batch.history.mask, batch.history.items, -1),
    }

    def loss(params: dict[str, np.ndarray]) -> float:
        return oracles.batch_loss(params, batch, "hlr", {}, margin=config.loss.margin)

    np.testing.assert_allclose(after.mean_loss() * float(after.triplets), loss(before), rtol=1e-5)
    gradient = oracles.numerical_gradient(loss, before)
    for name, x in oracle_params(after, placement).items():
        expected = before[name] - 0.1 * gradient[name]
        assert np.abs(gradient[name]).max() > 0.1
        np.testing.assert_allclose(x, expected, atol=1e-5)


def oracle_params(state: TrainState, placement: Placement) -> dict[str, np.ndarray]:
    tables = {
        name: np.asarray(state.params[name], np.float64)[:rows]
        for name, rows in placement.used_rows.items()
    }
    relation = {name: np.asarray(x, np.float64) for name, x in state.params["relation"].items()}
    return tables | relation


@pytest.mark.parametrize(
    ("mode", "count", "blocks", "history"),
    [
        ("users", 3, 1, "uniform"),
        ("whole", 3, 1, "uniform"),
        ("both", 8, 4, "uniform"),
        ("both", 8, 4, "unpopular"),
    ],
)
def test_loss_and_ranking_do_not_depend_on_the_placement(mode, count, blocks, history):
    config = config_of("hlr")
    config = dataclasses.replace(
        config, sampling=dataclasses.replace(config.sampling, history=history)
    )
    found = []
    for placement in (placed("replicated", 1), placed(mode, count, blocks)):
        state, _ = start(config, placement)
        measured = Recommender(config, data(), model_of(config.model), state.params, placement)
        loss = measured.validation_loss()
        # Users have up to 12 of the 41 items: the last places of their lists stay empty.
        known = data().train.union(data().valid)
        ids, scores = measured.top_k(np.arange(53, dtype=np.int32), 35, known)
        assert (ids == -1).any()
        assert not any(set(row.tolist()) & set(known.of(user)) for user, row in enumerate(ids))
        found.append((loss, measured.evaluate("test"), ids, scores))
    (loss, measures, ids, scores), (loss_2, measures_2, ids_2, scores_2) = found
    np.testing.assert_allclose(loss_2, loss, rtol=1e-6)
    assert measures_2 == measures
    np.testing.assert_array_equal(ids_2, ids)
    np.testing.assert_allclose(scores_2, scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("users", "batch", "mode", "count", "blocks"),
    [
        pytest.param(53, BATCH, "users", 5, 1, id="parts that do not divide"),
        pytest.param(5, 4, "users", 8, 1, id="more devices than users"),
        pytest.param(2, 1, "both", 8, 2, id="empty blocks and a batch of one"),
        pytest.param(14, 3, "both", 3, 3, id="a batch below the number of devices"),
    ],
)
def test_uneven_sizes_work(users, batch, mode, count, blocks):
    dataset = data(users) if users > 2 else few_users()
    config = dataclasses.replace(config_of(), training=TrainingConfig(batch_size=batch, epochs=1))
    found = []
    for placement in (
        placed("replicated", 1, dataset=dataset),
        placed(mode, count, blocks, dataset),
    ):
        state, losses = trained(config, placement, 4, dataset)
        rec = Recommender(config, dataset, model_of(config.model), state.params, placement)
        found.append((oracle_params(state, placement), losses, rec.evaluate("test")))
    assert found[1][2] == found[0][2]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
    assert_close(list(found[1][0].values()), list(found[0][0].values()))


def few_users() -> Dataset:
    """The first of two users has nothing but a test item."""

    def those(*pairs: tuple[int, int]) -> Interactions:
        return Interactions.from_pairs(*np.array(pairs).T, 2, 41)

    train = those((1, 3), (1, 8), (1, 9), (1, 40))
    return Dataset("few", train, those((1, 7)), those((0, 5)), np.arange(2), np.arange(41))


def test_no_device_has_the_whole():
    config = config_of("hlr")
    placement = placed("both", 4, 2)
    state, _ = start(config, placement)
    positives = recommender.training_positives(placement, data(), config)
    moments = optimizers.optax.tree_utils.tree_get(state.opt_state, "mu")
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


SPREAD = [("replicated", 1, 1), ("replicated", 8, 1), ("users", 3, 1), ("both", 8, 4)]


@pytest.mark.parametrize("saved", SPREAD)
def test_a_checkpoint_of_any_placement_goes_on_in_any_other(tmp_path, saved):
    config, progress = config_of(), Progress(epochs=3, parts=PARTS)
    placement = placed(*saved)
    state, _ = trained(config, placement, 3)
    store = Checkpoints(tmp_path, placement.used_rows)
    store.save(state, progress)
    store.save_best(state, progress)
    for restored in SPREAD:
        other = placed(*restored)
        like, optimizer = start(config, other)
        shapes = other.shapes(like.params, optimizer)
        found, found_progress = Checkpoints(tmp_path, other.used_rows).restore(shapes)
        assert found_progress == progress
        assert_close(used(found, other), used(state, placement), 0)
        for x, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(shapes), strict=True):
            assert x.sharding == wanted.sharding
        best = Checkpoints(tmp_path, other.used_rows).restore_best(shapes.params)
        np.testing.assert_array_equal(best["item"], found.params["item"])


def test_a_table_of_another_length_is_still_refused(tmp_path):
    placement = placed("users", 3)
    state, optimizer = start(config_of(), placement)
    Checkpoints(tmp_path, placement.used_rows).save(state, Progress())
    rows = placement.used_rows | {"user": 54}  # of 56 with those that fill the blocks up
    with pytest.raises(InputError, match=r"\['user'\] is \(53, 5\) and not \(54, 5\)"):
        Checkpoints(tmp_path, rows).restore(placement.shapes(state.params, optimizer))


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
            assert rec.placement.layout == (layout.BOTH_CUT if sharding else layout.REPLICATED)
        tables = {name: np.asarray(found.params[name]) for name in ("user", "item")}
        np.testing.assert_array_equal(np.asarray(loaded.params["user"]), tables["user"])
        return {name: x[: found.placement.used_rows[name]] for name, x in tables.items()}

    expected = run("uninterrupted", 4)
    run("changed", 2)
    found = run("changed", 4, tables="sharded", item_blocks=2)
    assert_close(list(found.values()), list(expected.values()))


@pytest.mark.parametrize(
    ("sharding", "fault"),
    [
        ({"item_blocks": 3}, "config.sharding.item_blocks=3: a process has 8 devices"),
        ({"user_parts": 5}, "config.sharding.user_parts=5: too few for 8 devices"),
    ],
)
def test_devices_that_cannot_be_divided_are_refused(tmp_path, sharding, fault):
    config = dataclasses.replace(config_of(), sharding=ShardingConfig(tables="sharded", **sharding))
    with pytest.raises(InputError, match=fault) as caught:
        experiment.train(config, tmp_path / "run", data(), show_progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_given_negatives_are_for_whole_tables(tmp_path):
    evaluation = EvaluationConfig(protocol="sampled")
    config = dataclasses.replace(
        config_of(), sharding=ShardingConfig(tables="sharded"), evaluation=evaluation
    )
    negatives = np.zeros((53, 2), np.int32)
    dataset = dataclasses.replace(data(), given_negatives=negatives)
    with pytest.raises(InputError, match=r"config\.evaluation\.protocol='sampled': is for whole"):
        experiment.train(config, tmp_path / "run", dataset, show_progress=False)


@pytest.mark.parametrize(("mode", "blocks"), [("users", 1), ("both", 2)])
def test_the_norm_that_gradients_are_clipped_by_is_of_all_rows(mode, blocks):
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.5, gradient_clip=0.5)
    config = config_of(optimizer=optimizer)
    unclipped = config_of(optimizer=dataclasses.replace(optimizer, gradient_clip=0.0))
    single, several = placed("replicated", 1), placed(mode, 4, blocks)
    expected = used(trained(config, single, 2)[0], single)
    free = used(trained(unclipped, single, 2)[0], single)
    assert np.abs(free[1] - expected[1]).max() > 0.01  # it matters
    assert_close(used(trained(config, several, 2)[0], several), expected)

"""TransCF's neighbours: who they are in training, in validation and in ranking."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.small_runs import Run

from hlr_jax.config import (
    Config,
    EvaluationConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import GEOMETRIES
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.batches import draw_batch
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training import neighbours
from hlr_jax.training.epoch import advance
from hlr_jax.training.inputs import (
    make_objective,
    make_recipe,
    shuffled_rows,
    validation_positives,
)
from hlr_jax.training.objective import Objective
from hlr_jax.training.rows import loss_of_batch
from hlr_jax.training.state import Keys, TrainState
from hlr_jax.types import HistoryIds, Params, SharedNegatives, TripletBatch

USERS, ITEMS, DIM, BATCH = 9, 14, 5, 11


@functools.cache
def data() -> Dataset:
    """The last user and the last item occur in no split but test."""
    rng = np.random.default_rng(2)
    splits: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(USERS - 1):
        own = rng.permutation(ITEMS - 1)[: 3 + user % 4].tolist()
        for split, items in zip(splits, (own[2:], own[:1], own[1:2]), strict=True):
            split += [(user, item) for item in items]
    splits[2].append((USERS - 1, ITEMS - 1))
    parts = [Interactions.from_pairs(*np.array(x).T, USERS, ITEMS) for x in splits]
    return Dataset("made up", *parts, np.arange(USERS), np.arange(ITEMS))


def pairs_of(interactions: Interactions) -> list[tuple[int, int]]:
    return list(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


def random_params() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "user": rng.normal(0, 0.6, (USERS, DIM)),
        "item": rng.normal(0, 0.6, (ITEMS, DIM)),
    }


def as_params(tables: dict[str, np.ndarray]) -> Params:
    return {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()} | {"relation": {}}


def in_float64(params: Params) -> dict[str, np.ndarray]:
    return {name: np.asarray(params[name], np.float64) for name in ("user", "item")}


def config_of(**changes: Any) -> Config:
    config = Config(
        model=ModelConfig(name="transcf", dim=DIM),
        geometry=GeometryConfig(options={"radius": 1e9}),
        sampling=SamplingConfig(options={"num_negatives": 2}),
        loss=LossConfig(options={"margin": 0.5}),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
        training=TrainingConfig(batch_size=BATCH, epochs=1),
        evaluation=EvaluationConfig(cutoffs=(3,), bootstrap=0),
    )
    return dataclasses.replace(config, **changes)


MODEL = RELATIONS.build("transcf", {}, dim=DIM)


def widened(tables: dict[str, np.ndarray], interactions: Interactions) -> Params:
    """What the model reads of tables."""
    rows = DeviceInteractions.of(interactions)
    return neighbours.Neighbours.of(rows, ITEMS).widened(MODEL, as_params(tables))


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_neighbours_are_means(size, monkeypatch):
    monkeypatch.setattr(neighbours, "neighbor_slice", lambda _: size)
    train, tables = data().train, random_params()
    read = widened(tables, train)
    means = oracles.transcf_neighbours(tables, pairs_of(train))
    for name, mean in zip(("user", "item"), means, strict=True):
        assert (np.abs(mean).sum(axis=1) == 0).any(), "a row without neighbours is a case too"
        wanted = np.concatenate([tables[name], mean], axis=1)
        np.testing.assert_allclose(read[name], wanted, rtol=1e-5, atol=1e-6)


def test_means_are_of_points_and_rows_stay_rows():
    """On the sphere, of rows that are normalised."""
    sphere = GEOMETRIES.build("sphere", {"radius": 1.3})
    model = RELATIONS.build("transcf", {}, dim=DIM, geometry=sphere)
    rows, tables = DeviceInteractions.of(data().train), random_params()
    read = neighbours.Neighbours.of(rows, ITEMS).widened(model, as_params(tables))
    means = oracles.transcf_neighbours(tables, pairs_of(data().train), oracles.Sphere(1.3))
    for name, mean in zip(("user", "item"), means, strict=True):
        wanted = np.concatenate([tables[name], mean], axis=1)
        np.testing.assert_allclose(read[name], wanted, rtol=1e-5, atol=1e-6)


def test_nobody_has_neighbours():
    nothing = Interactions.from_pairs(np.zeros(0, int), np.zeros(0, int), USERS, ITEMS)
    read = widened(random_params(), nothing)
    for name in ("user", "item"):
        np.testing.assert_array_equal(read[name][:, DIM:], 0)


def oracle_batch(
    users: Any, positives: Any, negatives: Any, means: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    users, positives, negatives = map(np.asarray, (users, positives, negatives))
    return {
        "users": users,
        "positives": positives,
        "negatives": negatives,
        "user_neighbours": means[0][users],
        "positive_neighbours": means[1][positives],
        "negative_neighbours": means[1][negatives],
    }


def drawn_for_oracle(batch: TripletBatch, means: Any) -> dict[str, np.ndarray]:
    found = oracle_batch(batch.users, batch.positives, batch.negatives.items, means)
    return found | {"row_mask": np.asarray(batch.weight)}


@pytest.mark.parametrize("update", ["dense", "sparse"])
def test_steps_are_those_of_the_equations(update):
    """Gradient descent; the means are of the tables as each step finds them, and constants."""
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.05, updates=update)
    run = Run.of(config_of(optimizer=optimizer), data())
    placement = Placement.replicated(1, USERS, ITEMS)
    state = TrainState.of(placement.params(as_params(random_params())), run.recipe.optimizer)
    rows = shuffled_rows(run.program.positives, BATCH, jax.random.key(4))
    steps = rows.order.shape[1]
    assert steps > 1
    recipe = jax.tree.map(placement.put, run.recipe)
    state = advance(jax.tree.map(placement.put, state), rows, (0, steps), recipe, placement)

    tables, total = random_params(), 0.0
    for step in range(steps):
        drawn = draw_batch(run.recipe.drawing, run.source, rows.order[0, step], rows.key, step)
        batch = drawn_for_oracle(drawn, oracles.transcf_neighbours(tables, pairs_of(data().train)))

        def loss(params: dict[str, np.ndarray], batch: Any = batch) -> float:
            return oracles.batch_loss(params, batch, "transcf", {}, margin=0.5)

        total += loss(tables)
        gradient = oracles.numerical_gradient(loss, tables)
        tables = {name: x - 0.05 * gradient[name] for name, x in tables.items()}
    np.testing.assert_allclose(state.loss_sum, total, rtol=1e-5)
    for name, table in tables.items():
        assert np.abs(table - random_params()[name]).max() > 0.01
        np.testing.assert_allclose(state.params[name], table, atol=1e-5)


def test_validation_goes_by_the_neighbours_of_training():
    config = config_of()
    tables = random_params()
    found = Recommender.of(config, data(), MODEL, as_params(tables)).validation_loss()
    placement = Placement.replicated(1, USERS, ITEMS)
    positives = validation_positives(placement, data(), config)
    drawing = make_recipe(config, make_objective(config, MODEL, ITEMS, None), data(), 1).drawing
    key = Keys.of(config.seed).valid
    rows = jnp.arange(len(positives), dtype=jnp.int32)
    drawn = draw_batch(drawing, positives.source, rows, key)
    batch = drawn_for_oracle(drawn, oracles.transcf_neighbours(tables, pairs_of(data().train)))
    wanted = oracles.batch_loss(tables, batch, "transcf", {}, margin=0.5, reduction="mean")
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_ranking_goes_by_the_neighbours_of_what_is_known():
    tables = random_params()
    known = data().train.union(data().valid)
    users = np.arange(USERS, dtype=np.int32)
    rec = Recommender.of(config_of(), data(), MODEL, as_params(tables))
    found = {}
    for name, interactions in (("train", data().train), ("both", known)):
        means = oracles.transcf_neighbours(tables, pairs_of(interactions))
        options = dict(zip(("user_neighbours", "item_neighbours"), means, strict=True))
        wanted = oracles.rank_scores(tables, users.tolist(), [[]] * USERS, "transcf", options)
        ids, scores = rec.top_k(users, ITEMS, interactions)
        seen = [interactions.of(int(user)).tolist() for user in users]
        np.testing.assert_array_equal(ids, oracles.top_k(wanted, seen, ITEMS))
        in_place = np.take_along_axis(wanted, np.maximum(ids, 0), axis=1)
        np.testing.assert_allclose(scores, np.where(ids < 0, -np.inf, in_place), rtol=1e-4)
        candidates = np.tile(np.arange(ITEMS, dtype=np.int32), (USERS, 1))
        pairs = rec.ranker.pair_scores(users, candidates, interactions)
        np.testing.assert_allclose(pairs, wanted, rtol=1e-4)
        found[name] = wanted
    assert np.abs(found["train"] - found["both"]).max() > 0.1
    hits = [
        item in oracles.top_k(found["both"], [known.of(u).tolist() for u in range(USERS)], 3)[user]
        for user, item in pairs_of(data().test)
    ]
    assert rec.evaluate("test")["recall@3"] == pytest.approx(np.mean(hits))


def test_shared_negatives_are_not_pulled():
    """Then the penalty is of the user and the positive alone."""
    tables, options = random_params(), {"alpha_nbr": 0.3, "alpha_dist": 0.2}
    model = RELATIONS.build("transcf", options, dim=DIM)
    means = oracles.transcf_neighbours(tables, pairs_of(data().train))
    users, items = np.array([0, 3, 5]), np.array([4, 1, 7])
    shared = np.array([2, 9, 11, 6])
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    batch = TripletBatch(
        jnp.asarray(users, jnp.int32),
        jnp.asarray(items, jnp.int32),
        SharedNegatives(jnp.asarray(shared, jnp.int32), jnp.asarray(mask)),
        HistoryIds.empty(3),
        jnp.ones(3),
    )
    objective = Objective(model, Hinge(0.5), num_items=ITEMS)
    total, terms = jax.jit(loss_of_batch)(objective, widened(tables, data().train), batch)

    every = oracle_batch(users, items, np.tile(shared, (3, 1)), means)
    positive, negatives = oracles.batch_distances(tables, every, "transcf", options)
    hinges = np.maximum(0, positive[:, None] - negatives + 0.5) * mask
    assert (hinges > 0).any()
    nothing = oracle_batch(users, items, np.zeros((3, 0), int), means)
    penalty = oracles.transcf_penalty(tables, nothing, positive, options)
    assert float(terms) == mask.sum()
    np.testing.assert_allclose(total, hinges.sum() + penalty, rtol=1e-5)


def test_sharded_tables_are_refused(tmp_path):
    config = config_of(sharding=ShardingConfig(tables="sharded"))
    with pytest.raises(
        InputError, match=r"config\.sharding\.tables='sharded': model 'transcf'"
    ) as e:
        experiment.train(config, tmp_path / "run", data(), show_progress=False)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run").exists()

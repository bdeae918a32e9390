"""TransCF's neighbours: who they are in training, in validation and in ranking."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

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
from hlr_jax.evaluation import ranking
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment, recommender
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.batches import Batch, draw_batch
from hlr_jax.sampling.sources import Rows
from hlr_jax.training import neighbours, objective, optimizers
from hlr_jax.training.objective import Params
from hlr_jax.training.step import Keys

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
        model=ModelConfig(name="transcf", dim=DIM, clip_norm=1e9),
        sampling=SamplingConfig(negatives=2),
        loss=LossConfig(margin=0.5),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
        training=TrainingConfig(batch_size=BATCH, epochs=1),
        evaluation=EvaluationConfig(cutoffs=(3,), bootstrap=0),
    )
    return dataclasses.replace(config, **changes)


MODEL = models.build("transcf", DIM, {})


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_neighbours_are_means(size, monkeypatch):
    monkeypatch.setattr(neighbours, "SLICE", size)
    train, tables = data().train, random_params()
    read = neighbours.Neighbours.of(Rows.of(train), ITEMS).widened(as_params(tables))
    means = oracles.transcf_neighbours(tables, pairs_of(train))
    for name, mean in zip(("user", "item"), means, strict=True):
        assert (np.abs(mean).sum(axis=1) == 0).any(), "a row without neighbours is a case too"
        wanted = np.concatenate([tables[name], mean], axis=1)
        np.testing.assert_allclose(read[name], wanted, rtol=1e-5, atol=1e-6)


def test_nobody_has_neighbours():
    nothing = Interactions.from_pairs(np.zeros(0, int), np.zeros(0, int), USERS, ITEMS)
    read = neighbours.Neighbours.of(Rows.of(nothing), ITEMS).widened(as_params(random_params()))
    for name in ("user", "item"):
        np.testing.assert_array_equal(read[name][:, DIM:], 0)


def oracle_batch(batch: Batch, means: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    users, items = np.asarray(batch.users), np.asarray(batch.items)
    return {
        "users": users,
        "positives": items[:, 0],
        "negatives": items[:, 1:],
        "row_mask": np.asarray(batch.weight),
        "user_neighbours": means[0][users],
        "positive_neighbours": means[1][items[:, 0]],
        "negative_neighbours": means[1][items[:, 1:]],
    }


@pytest.mark.parametrize("rows", ["all", "touched"])
def test_steps_are_those_of_the_equations(rows):
    """Gradient descent; the means are of the tables as each step finds them, and constants."""
    config = config_of(optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, rows=rows))
    placement = Placement.replicated(1, USERS, ITEMS)
    optimizer = optimizers.build(config.optimizer, config.training, 1)
    state = placement.state(placement.params(as_params(random_params())), optimizer)
    positives = recommender.training_positives(placement, data(), config)
    key = jax.random.key(4)
    order = placement.order(key, positives, BATCH)
    assert order.shape[1] > 1
    state = placement.advance(
        state, positives.source, order, key, 0, order.shape[1], MODEL, optimizer, config
    )

    tables, total = random_params(), 0.0
    for step in range(order.shape[1]):
        drawn = draw_batch(key, positives.source, order[0, step], 2, 0)
        means = oracles.transcf_neighbours(tables, pairs_of(data().train))
        batch = oracle_batch(drawn, means)

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
    positives = recommender.validation_positives(placement, data(), config)
    key = Keys.of(config.seed).valid
    drawn = draw_batch(key, positives.source, jnp.arange(len(positives), dtype=jnp.int32), 2, 0)
    means = oracles.transcf_neighbours(tables, pairs_of(data().train))
    batch = oracle_batch(drawn, means)
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
        read = ranking.read_params(MODEL, rec.placement.one_copy(rec.params), interactions)
        candidates = np.tile(np.arange(ITEMS, dtype=np.int32), (USERS, 1))
        pairs = ranking.pair_scores(
            *(read, jnp.asarray(users), jnp.asarray(candidates), Rows.of(interactions)),
            *(None, jax.random.key(0)),
            model=MODEL,
            length=0,
        )
        np.testing.assert_allclose(pairs, wanted, rtol=1e-4)
        found[name] = wanted
    assert np.abs(found["train"] - found["both"]).max() > 0.1
    hits = [
        item in oracles.top_k(found["both"], [known.of(u).tolist() for u in range(USERS)], 3)[user]
        for user, item in pairs_of(data().test)
    ]
    assert rec.evaluate("test")["recall@3"] == pytest.approx(np.mean(hits))


def test_a_shared_pool_is_not_pulled():
    """Then the penalty is of the user and the positive alone."""
    tables, options = random_params(), {"alpha_nbr": 0.3, "alpha_dist": 0.2}
    model = models.build("transcf", DIM, options)
    means = oracles.transcf_neighbours(tables, pairs_of(data().train))
    users, items = np.array([0, 3, 5]), np.array([4, 1, 7])
    pool = np.array([2, 9, 11, 6])
    unseen = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    batch = Batch(
        jnp.asarray(users, jnp.int32),
        jnp.asarray(items[:, None], jnp.int32),
        None,
        jnp.ones(3),
        jnp.asarray(pool, jnp.int32),
        jnp.asarray(unseen),
    )
    read = neighbours.Neighbours.of(Rows.of(data().train), ITEMS).widened(as_params(tables))
    total, terms = objective.loss_of_batch(model, LossConfig(margin=0.5), ITEMS, read, batch)

    def rows(negatives: np.ndarray) -> dict[str, np.ndarray]:
        weight = np.ones(3)
        whole = np.concatenate([items[:, None], negatives], axis=1)
        return oracle_batch(batch._replace(items=whole, weight=weight), means)

    every = rows(np.tile(pool, (3, 1)))
    positive, negatives = oracles.batch_distances(tables, every, "transcf", options)
    hinges = np.maximum(0, positive[:, None] - negatives + 0.5) * unseen
    assert (hinges > 0).any()
    nothing = rows(np.zeros((3, 0), int))
    penalty = oracles.transcf_penalty(tables, nothing, positive, *options.values())
    assert float(terms) == unseen.sum()
    np.testing.assert_allclose(total, hinges.sum() + penalty, rtol=1e-5)


def test_cut_tables_are_refused(tmp_path):
    config = config_of(sharding=ShardingConfig(tables="sharded"))
    with pytest.raises(
        InputError, match=r"config\.sharding\.tables='sharded': model 'transcf'"
    ) as e:
        experiment.train(config, tmp_path / "run", data(), show_progress=False)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run").exists()

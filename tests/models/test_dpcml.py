"""DPCML's several vectors of a user: their bounds, their diversity, and where they come from."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from hlr_jax.config import (
    Config,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS
from hlr_jax.models.dpcml import diversity
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training.exchange import DenseExchange
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.objective import Objective
from hlr_jax.training.optimizers import GivenOptimizer
from hlr_jax.training.state import TrainState
from hlr_jax.training.step import train_step
from hlr_jax.types import HistoryIds, PerExampleNegatives, TripletBatch

USERS, ITEMS, DIM, VECTORS = 7, 12, 5, 3


@functools.cache
def data() -> Dataset:
    rng = np.random.default_rng(0)
    splits: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(USERS):
        own = rng.permutation(ITEMS)[:6].tolist()
        for split, items in zip(splits, (own[2:], own[:1], own[1:2]), strict=True):
            split += [(user, item) for item in items]
    parts = [Interactions.from_pairs(*np.array(x).T, USERS, ITEMS) for x in splits]
    return Dataset("made up", *parts, np.arange(USERS), np.arange(ITEMS))


def tables() -> dict[str, np.ndarray]:
    """Some vectors are inside and some outside of the unit ball."""
    rng = np.random.default_rng(1)
    return {
        "user": rng.normal(0, 0.5, (USERS, VECTORS * DIM)).astype(np.float32),
        "item": rng.normal(0, 0.5, (ITEMS, DIM)).astype(np.float32),
    }


def config_of(**options: Any) -> Config:
    return Config(
        model=ModelConfig(name="dpcml", dim=DIM, options={"vectors": VECTORS, **options}),
        sampling=SamplingConfig(options={"num_negatives": 2}),
        loss=LossConfig(options={"margin": 0.5}),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
        training=TrainingConfig(batch_size=10, epochs=1),
        evaluation=EvaluationConfig(cutoffs=(3,), bootstrap=0),
    )


def vector_by_vector(table: np.ndarray, radius: float) -> np.ndarray:
    return oracles.project(table.reshape(-1, DIM), radius).reshape(table.shape)


@pytest.mark.parametrize("vectors", [2, 5])
def test_diversity_is_half_the_mean_squared_distance_of_two_vectors(vectors):
    x = np.random.default_rng(2).normal(size=(4, vectors, DIM))
    for geometry, oracle in ((Ball(), oracles.Ball()), (Lorentz(0.7), oracles.Lorentz(0.7))):
        expected = [oracles.dpcml_diversity(list(row), oracle) for row in x]
        found = diversity(geometry, jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    apart = [np.square(a - b).sum() for i, a in enumerate(x[0]) for b in x[0][:i]]
    np.testing.assert_allclose(oracles.dpcml_diversity(list(x[0])), np.mean(apart) / 2)


# One program for both radii.
DESCENT = optax.sgd(0.1)
step = jax.jit(train_step)


@pytest.mark.parametrize("radius", [1.0, 0.6])
def test_each_vector_is_kept_in_the_ball(radius):
    """By a step of training, from a batch that uses some of the users."""
    options = {"vectors": VECTORS}
    model = RELATIONS.build("dpcml", options, dim=DIM, geometry=Ball(radius))
    params = {name: jnp.asarray(x) for name, x in tables().items()} | {"relation": {}}
    users, items = np.array([0, 2, 2]), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 1]])
    batch = TripletBatch(
        jnp.asarray(users, jnp.int32),
        jnp.asarray(items[:, 0], jnp.int32),
        PerExampleNegatives(jnp.asarray(items[:, 1:], jnp.int32), jnp.ones((3, 2), bool)),
        HistoryIds.empty(3),
        jnp.ones(3),
    )
    optimizer, objective = GivenOptimizer(DESCENT, ()), Objective(model, Hinge(0.5))
    state = TrainState.of(params, optimizer)
    after = step(state, batch, objective, optimizer, DenseExchange(), NoNeighbours())[0].params
    of_oracle = {"users": users, "positives": items[:, 0], "negatives": items[:, 1:]}
    before = {name: x.astype(np.float64) for name, x in tables().items()}
    gradient = oracles.numerical_gradient(
        lambda p: oracles.batch_loss(p, of_oracle, "dpcml", options, margin=0.5), before
    )
    for name, x in before.items():
        moved = x - 0.1 * gradient[name]
        norms = np.linalg.norm(moved.reshape(-1, DIM), axis=1)
        assert norms.min() < radius < norms.max()
        np.testing.assert_allclose(after[name], vector_by_vector(moved, radius), atol=2e-6)


def test_the_penalty_keeps_diversity_between_its_bounds():
    """Descent on the penalty alone, of users below, between and above the bounds."""
    bounds = {"min_diversity": 0.3, "max_diversity": 0.5}
    model = RELATIONS.build(
        "dpcml", {"vectors": VECTORS, "diversity_weight": 1.0, **bounds}, dim=DIM
    )
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(3, VECTORS, DIM))
    scales = [
        np.sqrt(wanted / oracles.dpcml_diversity(list(x)))
        for wanted, x in zip((0.01, 0.4, 5.0), vectors, strict=True)
    ]
    vectors *= np.array(scales)[:, None, None]
    user = jnp.asarray(vectors.reshape(3, 1, -1), jnp.float32)
    nothing = jnp.zeros((3, 1, DIM)), jnp.zeros((3, 1))

    def penalty(user: jax.Array) -> jax.Array:
        return model.penalty(user, *nothing).sum()

    value_and_grad = jax.jit(jax.value_and_grad(penalty))
    start = np.asarray(diversity(Ball(), user.reshape(3, VECTORS, DIM)))
    assert start[0] < 0.3 < start[1] < 0.5 < start[2]
    for _ in range(400):
        value, gradient = value_and_grad(user)
        user = user - 0.02 * gradient
    end = np.asarray(diversity(Ball(), user.reshape(3, VECTORS, DIM)))
    np.testing.assert_allclose(end, [0.3, start[1], 0.5], atol=0.02)
    assert value < 0.02


def test_without_a_weight_there_is_no_penalty():
    model = RELATIONS.build("dpcml", {"diversity_weight": 0.0}, dim=DIM)
    user, items = jnp.ones((2, 1, 4 * DIM)), jnp.ones((2, 3, DIM))
    np.testing.assert_array_equal(model.penalty(user, items, jnp.ones((2, 3))), [0, 0])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"vectors": 1}, r"config\.model\.vectors=1: use 2 or more"),
        ({"vectors": -1}, r"config\.model\.vectors=-1: use 2 or more"),
        ({"diversity_weight": -1.0}, r"config\.model\.diversity_weight=-1\.0: use 0 or more"),
        ({"min_diversity": -0.1}, r"config\.model\.min_diversity=-0\.1: use 0 or more"),
        (
            {"min_diversity": 0.3},
            r"config\.model\.max_diversity=0\.25: use at least config\.model\.min_diversity=0\.3",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, fault):
    with pytest.raises(InputError, match=fault) as caught:
        RELATIONS.build("dpcml", options, dim=DIM)
    assert "\n" not in str(caught.value)


def test_a_run_trains_saves_and_ranks(tmp_path):
    config = config_of()
    first = experiment.train(config, tmp_path / "first", data(), show_progress=False)
    assert first.params["user"].shape == (USERS, VECTORS * DIM)
    loaded = Recommender.load(tmp_path / "first", data())
    users = np.arange(USERS, dtype=np.int32)
    known = data().train.union(data().valid)
    ids, scores = loaded.top_k(users, 4, known)
    found = {name: np.asarray(first.params[name], np.float64) for name in ("user", "item")}
    wanted = oracles.rank_scores(found, users.tolist(), [[]] * USERS, "dpcml", {})
    seen = [known.of(int(user)).tolist() for user in users]
    np.testing.assert_array_equal(ids, oracles.top_k(wanted, seen, 4))
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, ids, axis=1), rtol=1e-4)


def test_pretrained_tables_are_where_training_starts(tmp_path):
    np.savez(tmp_path / "tables.npz", **tables())
    start = TrainingConfig(
        batch_size=10,
        epochs=1,
        pretrained=str(tmp_path / "tables.npz"),
        freeze_user=True,
        freeze_item=True,
    )
    config = dataclasses.replace(config_of(), training=start)
    params = experiment.train(config, None, data(), show_progress=False).params
    for name, table in tables().items():
        np.testing.assert_array_equal(params[name], table)


def test_pretrained_users_of_one_vector_are_refused(tmp_path):
    np.savez(tmp_path / "tables.npz", user=tables()["user"][:, :DIM])
    start = TrainingConfig(pretrained=str(tmp_path / "tables.npz"))
    config = dataclasses.replace(config_of(), training=start)
    with pytest.raises(InputError, match=r"user has shape \(7, 5\), expected \(7, 15\)") as caught:
        experiment.train(config, None, data(), show_progress=False)
    assert "\n" not in str(caught.value)

"""Optimizers and schedules by name, against loops in double precision."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from numpy.typing import ArrayLike

from hlr_jax import optimizers, training
from hlr_jax.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from hlr_jax.models import build
from hlr_jax.sampling import Batch
from hlr_jax.training import Params, TrainState

STEPS = 12
SHAPES = {"user": (3, 4), "item": (5, 4), "key": (4, 2)}
RNG = np.random.default_rng(0)
START = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
TARGET = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
CURVATURE = {name: RNG.uniform(0.2, 3, size=shape) for name, shape in SHAPES.items()}

Tables = dict[str, np.ndarray]


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


def quadratic_gradient(tables: Any) -> Any:
    """Of `sum of curvature / 2 (x - target)^2`; the same formula for both precisions."""
    return {
        name: (x - TARGET[name].astype(x.dtype)) * CURVATURE[name].astype(x.dtype)
        for name, x in tables.items()
    }


def as_params(tables: Tables) -> Params:
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()}
    return {"user": arrays["user"], "item": arrays["item"], "relation": {"key": arrays["key"]}}


def as_tables(params: Params) -> dict[str, jax.Array]:
    return {"user": params["user"], "item": params["item"], **params["relation"]}


def run(
    config: OptimizerConfig,
    training_config: TrainingConfig | None = None,
    steps_per_epoch: int = 4,
    gradient: Callable[[Any], Any] = quadratic_gradient,
) -> list[Tables]:
    """The tables at the start and after each step by the library's optimizer."""
    optimizer = optimizers.build(config, training_config or TrainingConfig(), steps_per_epoch)
    update = jax.jit(optimizer.update)
    params = as_params(START)
    state = optimizer.init(params)
    visited = [as_tables(params)]
    for _ in range(STEPS):
        gradients = gradient({k: np.asarray(x) for k, x in as_tables(params).items()})
        updates, state = update(as_params(gradients), state, params)
        params = optax.apply_updates(params, updates)
        visited.append(as_tables(params))
    return [{name: np.asarray(x) for name, x in tables.items()} for tables in visited]


def by_loops(
    step: Callable[[str, np.ndarray, np.ndarray, int], np.ndarray],
    gradient: Callable[[Tables], Tables] = quadratic_gradient,
) -> list[Tables]:
    """The same with `x <- x - step(name, x, g, t)` in double precision; t counts from 0."""
    tables, visited = START, [START]
    for t in range(STEPS):
        gradients = gradient(tables)
        tables = {name: x - step(name, x, gradients[name], t) for name, x in tables.items()}
        visited.append(tables)
    return visited


def assert_same_path(actual: list[Tables], expected: list[Tables], bound: float = 1e-5) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_close(ours[name], theirs[name], bound)


# --- the update rules ----------------------------------------------------------------------------


def test_sgd() -> None:
    actual = run(OptimizerConfig(name="sgd", learning_rate=0.1))
    assert_same_path(actual, by_loops(lambda name, x, g, t: 0.1 * g))


def test_adam_is_the_oracle_s_dense_adam() -> None:
    """There the epsilon is outside of the bias correction (TensorFlow 1), here inside.

    They differ by about `epsilon / |g|`, nothing for gradients of ordinary size.
    """
    actual = run(OptimizerConfig(name="adam", learning_rate=0.05))
    expected = oracles.adam_steps_dense(quadratic_gradient, START, STEPS, 0.05, radius=None)
    assert_same_path(actual, [START, *expected])


def test_adam_moves_rows_after_their_last_gradient() -> None:
    """Dense moments: a row goes on moving although only the first step touched it."""

    def only_at_first() -> Callable[[Any], Any]:
        calls = []

        def gradient(tables: Any) -> Any:
            calls.append(1)
            gradients = quadratic_gradient(tables)
            if len(calls) > 1:
                gradients["user"][0] = 0
            return gradients

        return gradient

    actual = run(OptimizerConfig(name="adam", learning_rate=0.05), gradient=only_at_first())
    expected = oracles.adam_steps_dense(only_at_first(), START, STEPS, 0.05, radius=None)
    assert_same_path(actual, [START, *expected])
    moves = np.diff([tables["user"][0] for tables in actual], axis=0)
    assert (np.abs(moves) > 1e-3).all()


def adam_step(rate: float, decay: float) -> Callable[[str, np.ndarray, np.ndarray, int], Any]:
    """Adam with a decoupled decay (Loshchilov and Hutter 2019)."""
    first, second = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))

    def step(name: str, x: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        first[name] = 0.9 * first[name] + 0.1 * g
        second[name] = 0.999 * second[name] + 0.001 * g**2
        mean = first[name] / (1 - 0.9 ** (t + 1))
        square = second[name] / (1 - 0.999 ** (t + 1))
        return rate * (mean / (np.sqrt(square) + 1e-8) + decay * x)

    return step


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_decays_weights_apart_from_the_gradient(decay: float) -> None:
    actual = run(OptimizerConfig(name="adamw", learning_rate=0.05, weight_decay=decay))
    assert_same_path(actual, by_loops(adam_step(0.05, decay)))


def test_weight_decay_is_adamw_s_alone() -> None:
    with_decay = OptimizerConfig(name="adam", learning_rate=0.05, weight_decay=0.3)
    assert_same_path(run(with_decay), by_loops(adam_step(0.05, 0.0)))


def test_adagrad() -> None:
    """Optax's: sums of squares start at 0.1, and 1e-7 is added under the root."""
    sums = {name: np.full(shape, 0.1) for name, shape in SHAPES.items()}

    def step(name: str, x: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        sums[name] = sums[name] + g**2
        return 0.1 * g / np.sqrt(sums[name] + 1e-7)

    actual = run(OptimizerConfig(name="adagrad", learning_rate=0.1))
    assert_same_path(actual, by_loops(step))


# --- schedules -----------------------------------------------------------------------------------


def rates(config: OptimizerConfig, steps: list[int], epochs: int = 5) -> list[float]:
    """The learning rate at these steps, of 10 an epoch."""
    schedule = optimizers.schedule(config, steps_per_epoch=10, epochs=epochs)
    return [float(schedule(step)) for step in steps]


def test_constant_schedule() -> None:
    config = OptimizerConfig(learning_rate=0.2)
    np.testing.assert_allclose(rates(config, [0, 1, 49, 1000]), 0.2, rtol=1e-6)


def test_exponential_schedule_is_a_staircase_of_epochs() -> None:
    config = OptimizerConfig(learning_rate=0.2, schedule="exponential", decay_rate=0.9)
    actual = rates(config, [0, 9, 10, 19, 20, 49])
    np.testing.assert_allclose(actual, 0.2 * 0.9 ** np.array([0, 0, 1, 1, 2, 4]), rtol=1e-6)


def test_cosine_schedule_reaches_zero_at_the_end_of_the_last_epoch() -> None:
    config = OptimizerConfig(learning_rate=0.2, schedule="cosine")
    actual = rates(config, [0, 10, 25, 49, 50, 60])
    expected = 0.1 * (1 + np.cos(np.pi * np.array([0, 10, 25, 49, 50, 50]) / 50))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)
    assert rates(config, [20], epochs=2) == [0.0]


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", [0.2, 0.2, 0.2, 0.2]),
        ("exponential", [0.2, 0.2, 0.18, 0.162]),
        ("cosine", [0.2, *(0.1 * (1 + np.cos(np.pi * np.array([9, 10, 20]) / 35)))]),
    ],
)
def test_warm_up_is_linear_and_the_schedule_begins_after_it(
    schedule: str, after: list[float]
) -> None:
    """1.5 epochs are 15 steps; cosine has 35 left of 50."""
    config = OptimizerConfig(
        learning_rate=0.2, schedule=schedule, decay_rate=0.9, warmup_epochs=1.5
    )
    actual = rates(config, [0, 1, 6, 14, 15, 24, 25, 35])
    expected = [*(0.2 * np.array([0, 1, 6, 14]) / 15), *after]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)


def test_cosine_after_warm_up_ends_with_the_last_epoch() -> None:
    config = OptimizerConfig(learning_rate=0.2, schedule="cosine", warmup_epochs=1.0)
    last, end = rates(config, [49, 50])
    assert last > 0
    assert abs(end) < 1e-9


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_optimizer_follows_the_schedule(name: str) -> None:
    """Each step's size is that of its own step count, from 0."""
    config = OptimizerConfig(
        name=name, learning_rate=0.05, schedule="exponential", decay_rate=0.5, warmup_epochs=0.5
    )
    rate = [0.0, 0.025, *[0.05] * 4, *[0.025] * 4, *[0.0125] * 2]
    unit = adam_step(1.0, 0.0)

    def step(table: str, x: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        return rate[t] * (g if name == "sgd" else unit(table, x, g, t))

    assert_same_path(run(config), by_loops(step))


# --- clipping and frozen tables ------------------------------------------------------------------


def global_norm(tables: Tables) -> float:
    return float(np.sqrt(sum((x**2).sum() for x in tables.values())))


def clipped(bound: float) -> Callable[[Tables], Tables]:
    def gradient(tables: Tables) -> Tables:
        gradients = quadratic_gradient(tables)
        scale = min(1.0, bound / global_norm(gradients))
        return {name: scale * g for name, g in gradients.items()}

    return gradient


@pytest.mark.parametrize("bound", [0.5, 4.0, 1e6])
def test_gradients_are_clipped_by_their_global_norm(bound: float) -> None:
    """The norm is one over all tables; the bounds clip always, at first, and never."""
    actual = run(OptimizerConfig(name="sgd", learning_rate=0.2, gradient_clip=bound))
    expected = by_loops(lambda name, x, g, t: 0.2 * g, clipped(bound))
    assert_same_path(actual, expected)
    norms = [global_norm(quadratic_gradient(tables)) for tables in expected[:-1]]
    assert {0.5: min(norms) > 0.5, 4.0: max(norms) > 4 > min(norms), 1e6: True}[bound]


def test_clipping_comes_before_the_optimizer_s_own_scaling() -> None:
    config = OptimizerConfig(name="adam", learning_rate=0.05, gradient_clip=0.5)
    assert_same_path(run(config), by_loops(adam_step(0.05, 0.0), clipped(0.5)))


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "sgd"])
@pytest.mark.parametrize("frozen", [("user",), ("item",), ("user", "item")])
def test_frozen_tables_stay_and_the_others_move_as_ever(frozen: tuple[str, ...], name: str) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.1)
    freezing = TrainingConfig(freeze_user="user" in frozen, freeze_item="item" in frozen)
    actual, free = run(config, freezing), run(config)
    for table in SHAPES:
        if table in frozen:
            np.testing.assert_array_equal(actual[-1][table], actual[0][table])
        else:
            assert np.abs(actual[-1][table] - actual[0][table]).max() > 0.05
            assert_close(actual[-1][table], free[-1][table], 1e-6)


def test_a_frozen_table_has_no_optimizer_state() -> None:
    freezing = TrainingConfig(freeze_user=True)
    optimizer = optimizers.build(OptimizerConfig(), freezing, 1)
    shapes = [x.shape for x in jax.tree.leaves(optimizer.init(as_params(START)))]
    assert SHAPES["user"] not in shapes
    assert shapes.count(SHAPES["item"]) == shapes.count(SHAPES["key"]) == 2


def test_the_gradient_of_a_frozen_table_does_not_count_for_clipping() -> None:
    freezing = TrainingConfig(freeze_user=True)
    config = OptimizerConfig(name="sgd", learning_rate=0.2, gradient_clip=0.5)

    def trained_only(tables: Tables) -> Tables:
        gradients = {k: g for k, g in quadratic_gradient(tables).items() if k != "user"}
        scale = min(1.0, 0.5 / global_norm(gradients))
        return {"user": 0 * tables["user"]} | {k: scale * g for k, g in gradients.items()}

    expected = by_loops(lambda name, x, g, t: 0.2 * g, trained_only)
    assert_same_path(run(config, freezing), expected)


@pytest.mark.parametrize("frozen", ["user", "item", None])
def test_a_step_neither_moves_nor_projects_a_frozen_table(frozen: str | None) -> None:
    """Rows outside of the ball, as pretrained ones may be, stay there bitwise."""
    config = Config(
        model=ModelConfig(name="cml", dim=4, clip_norm=1.0),
        optimizer=OptimizerConfig(learning_rate=0.01),
        training=TrainingConfig(freeze_user=frozen == "user", freeze_item=frozen == "item"),
    )
    model = build("cml", 4, {})
    optimizer = optimizers.build(config.optimizer, config.training, 1)
    before = {name: jnp.asarray(2 * START[name], jnp.float32) for name in ("user", "item")} | {
        "relation": {}
    }
    batch = Batch(
        jnp.asarray([0, 1, 2], jnp.int32),
        jnp.asarray([[0, 1], [2, 3], [4, 0]], jnp.int32),
        None,
        jnp.ones(3),
    )
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, margin=50.0))
    state = TrainState.of(before, optimizer)
    step = jax.jit(lambda s, b: training.train_step(s, b, model, optimizer, config))
    after = step(state, batch).params
    for name in ("user", "item"):
        norms = np.linalg.norm(np.asarray(after[name]), axis=1)
        if name == frozen:
            np.testing.assert_array_equal(after[name], before[name])
            assert norms.max() > 1.5
        else:
            assert norms.max() <= 1 + 1e-6
            projected = oracles.project(before[name], 1.0)
            assert np.abs(after[name] - projected).max() > 1e-3

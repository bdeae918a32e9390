"""Optimizers by name, against loops in double precision."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from support.quadratic import (
    SHAPES,
    START,
    STEPS,
    Tables,
    as_params,
    as_tables,
    assert_close,
    assert_same_path,
    by_loops,
    quadratic_gradient,
)

from hlr_jax.config import Config, OptimizerConfig, TrainingConfig
from hlr_jax.training.optimizers import (
    NO_COUNTS,
    Counts,
    GivenOptimizer,
    NamedOptimizer,
    relative_frequency,
)
from hlr_jax.types import Params

NOTHING_FROZEN = TrainingConfig()


@jax.jit
def update(
    optimizer: NamedOptimizer, params: Params, state: optax.OptState, gradients: Params
) -> tuple[Params, optax.OptState]:
    with jax.numpy_dtype_promotion("standard"):  # as a step has it
        updates, state = optimizer.transformation().update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def run(
    config: OptimizerConfig,
    training: TrainingConfig = NOTHING_FROZEN,
    gradient: Callable[[Any], Any] = quadratic_gradient,
    counts: Counts = NO_COUNTS,
) -> list[Tables]:
    """The tables at the start and after each step by the library's optimizer, 4 an epoch."""
    optimizer = NamedOptimizer.of(Config(optimizer=config, training=training), 4, counts)
    params = as_params(START)
    state = optimizer.transformation().init(params)
    visited = [as_tables(params)]
    for _ in range(STEPS):
        gradients = gradient({k: np.asarray(x) for k, x in as_tables(params).items()})
        params, state = update(optimizer, params, state, as_params(gradients))
        visited.append(as_tables(params))
    return [{name: np.asarray(x) for name, x in tables.items()} for tables in visited]


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


def adam_step(
    rate: float, decay: float, factors: Mapping[str, np.ndarray] = NO_COUNTS
) -> Callable[[str, np.ndarray, np.ndarray, int], Any]:
    """Adam with a decoupled decay (Loshchilov and Hutter 2019), times a factor of each row."""
    first, second = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))

    def step(name: str, x: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        first[name] = 0.9 * first[name] + 0.1 * g
        second[name] = 0.999 * second[name] + 0.001 * g**2
        mean = first[name] / (1 - 0.9 ** (t + 1))
        square = second[name] / (1 - 0.999 ** (t + 1))
        of_rows = factors[name][:, None] if name in factors else 1.0
        return rate * (mean / (np.sqrt(square) + 1e-8) + decay * of_rows * x)

    return step


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_decays_weights_apart_from_the_gradient(decay: float) -> None:
    actual = run(OptimizerConfig(name="adamw", learning_rate=0.05, weight_decay=decay))
    assert_same_path(actual, by_loops(adam_step(0.05, decay)))


# Of the rows of SHAPES; one user and one item have none.
COUNTS = {"user": np.array([7, 0, 2]), "item": np.array([1, 12, 0, 4, 4])}


@pytest.mark.parametrize("exponent", [-0.5, 0.5, 1.0])
@pytest.mark.parametrize("frozen", ["", "user"])
def test_weights_decay_by_frequency(exponent: float, frozen: str) -> None:
    """Rows of tables do; rows without interactions and the relation decay as ever."""
    config = OptimizerConfig(
        name="adamw", learning_rate=0.05, weight_decay=0.3, weight_decay_exponent=exponent
    )
    freezing = TrainingConfig(freeze_user=frozen == "user")
    factors = {name: oracles.decay_factors(n, exponent) for name, n in COUNTS.items()}
    step = adam_step(0.05, 0.3, factors)
    expected = by_loops(lambda name, x, g, t: 0.0 * x if name == frozen else step(name, x, g, t))
    assert_same_path(run(config, freezing, counts=COUNTS), expected)


def test_decay_factors_by_hand() -> None:
    np.testing.assert_allclose(oracles.decay_factors([8, 0, 2, 2], 0.5), np.sqrt([2, 1, 0.5, 0.5]))
    found = relative_frequency(np.array([8, 0, 2, 2]))
    np.testing.assert_allclose(found, [2, 0, 0.5, 0.5])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(relative_frequency(np.zeros(3, int)), np.zeros(3))


def test_an_exponent_of_0_is_optax_s_adamw() -> None:
    """Whatever the counts; there is no more state either."""
    config = Config(optimizer=OptimizerConfig(name="adamw", weight_decay=0.3))
    params = as_params(START)
    chosen = NamedOptimizer.of(config, 4, COUNTS).transformation().init(params)
    assert jax.tree.structure(chosen) == jax.tree.structure(optax.adamw(1e-3).init(params))


def test_frequencies_fill_up_with_rows_that_decay_as_ever() -> None:
    """A table has more rows than there are users where rows fill shards up."""
    config = Config(optimizer=OptimizerConfig(name="adamw", weight_decay_exponent=0.5))
    optimizer = NamedOptimizer.of(config, 4, {"user": np.array([2, 6]), "item": COUNTS["item"]})
    state = optimizer.transformation().init(as_params(START))
    frequency = state[1].frequency
    np.testing.assert_allclose(frequency["user"], [[0.5], [1.5], [0]])
    assert frequency["item"].shape == (5, 1)
    assert frequency["relation"]["key"].shape == (1, 1)


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


# --- schedules ------------------------------------------------------------------------------------


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
    optimizer = NamedOptimizer.of(Config(training=freezing), steps_per_epoch=1)
    state = optimizer.transformation().init(as_params(START))
    shapes = [x.shape for x in jax.tree.leaves(state)]
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


def test_a_given_optimizer_is_slowed_by_its_updates():
    """Its state has the same tree, so that a stored one is restored."""
    params = {"user": jnp.ones((2, 3)), "item": jnp.full((2, 3), 2.0), "relation": {}}
    given = GivenOptimizer(optax.adam(0.1), ())
    whole, half = given.transformation(), given.slowed(0.5).transformation()
    state = whole.init(params)
    assert jax.tree.structure(half.init(params)) == jax.tree.structure(state)
    with jax.numpy_dtype_promotion("standard"):  # As a step has it.
        updates, halved = (x.update(params, state, params)[0] for x in (whole, half))
    for one, other in zip(*map(jax.tree.leaves, (updates, halved)), strict=True):
        np.testing.assert_array_equal(other, one / 2)

"""Optimizers and schedules by name, against loops in double precision."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from hlr_jax.config import Config, LossConfig, ModelConfig, OptimizerConfig, TrainingConfig
from hlr_jax.models import History, Relation, build
from hlr_jax.models.relation import Histories
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import optimizers
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params
from hlr_jax.training.optimizers import LastUse
from hlr_jax.training.step import TrainState

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


def test_cosine_takes_its_own_number_of_epochs() -> None:
    """Longer than the run, or shorter: then nothing moves any more."""
    for own in (3, 8):
        config = OptimizerConfig(learning_rate=0.2, schedule="cosine", schedule_epochs=own)
        steps = np.array([0, 10, 29, 45])
        expected = 0.1 * (1 + np.cos(np.pi * np.minimum(steps / (10 * own), 1)))
        np.testing.assert_allclose(rates(config, steps.tolist()), expected, rtol=1e-5, atol=1e-9)


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
    step = jax.jit(lambda s, b: training.train_step(s, b, model, optimizer, config)[0])
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


# --- updates of the rows that a batch uses -------------------------------------------------------


class MeanOfHistory(Relation):
    """`r = shift + mean of the history's rows`: gradients of it are written down in a line."""

    uses_history = True

    @nn.compact
    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        assert history is not None
        shift = self.param("shift", nn.initializers.zeros, (1, self.dim), jnp.float32)
        count = jnp.maximum(history.mask.sum(-1, dtype=jnp.float32), 1)
        mean = jnp.where(history.mask[..., None], history.rows, 0).sum(-2) / count[..., None]
        shift = shift.reshape((1,) * (mean.ndim - 1) + (-1,))
        return jnp.broadcast_to(shift + mean, jnp.broadcast_shapes(user.shape, item.shape))


DIM, ROWS, PLACES, RADIUS, MARGIN = 4, 5, 3, 1.0, 0.6
# A batch uses 5 users and up to 30 items. The tables have fewer rows than that, or more.
SIZES = {"small": (4, 12), "large": (40, 70)}


def batches(size: str, steps: int = 6) -> list[dict[str, np.ndarray]]:
    """With repeated rows. Padding and masked places say 0; row 0 itself is used in step 3 alone."""
    rng = np.random.default_rng(8)
    num_users, num_items = SIZES[size]
    found = []
    for step in range(steps):
        # From few rows, so that they come again in later steps.
        users = rng.integers(1, min(num_users, 8), size=ROWS)
        items = rng.integers(1, min(num_items, 16), size=(ROWS, 3))
        users[1] = users[0]
        items[0, 2] = items[0, 1]  # negatives that coincide
        items[1] = items[0, ::-1]  # the negatives of one row are the positive of another
        mask = rng.random((ROWS, PLACES)) < 0.6
        mask[0], mask[2] = True, False
        history = rng.integers(1, min(num_items, 16), size=mask.shape)
        weight = np.ones(ROWS)
        if step == 3:
            users[3], items[3, 1] = 0, 0
        else:
            users[4], items[4], history[4], weight[4] = 0, 0, 0, 0
            mask[4] = step % 2 == 0  # A place counts for nothing in a row that does not.
        history = np.where(mask, history, 0)
        parts = {"users": users, "items": items, "history": history, "mask": mask, "weight": weight}
        found.append(parts)
    return found


def as_batch(batch: dict[str, np.ndarray]) -> Batch:
    users, items, history = (
        jnp.asarray(batch[name], jnp.int32) for name in ("users", "items", "history")
    )
    histories = Histories(history, jnp.asarray(batch["mask"]))
    return Batch(users, items, histories, jnp.asarray(batch["weight"], jnp.float32))


RowId = tuple[str, int]


def row_gradients(rows: dict[RowId, np.ndarray], batch: dict[str, np.ndarray]) -> dict[RowId, Any]:
    """The gradient of each row that the batch uses, 0 where no hinge is active."""
    found: dict[RowId, Any] = {("shift", 0): np.zeros(DIM)}

    def add(row: RowId, gradient: np.ndarray | float) -> None:
        found[row] = found.get(row, np.zeros(DIM)) + gradient

    for b in range(ROWS):
        if not batch["weight"][b]:
            continue
        user, positive = ("user", batch["users"][b]), ("item", batch["items"][b, 0])
        places = [("item", item) for item in batch["history"][b][batch["mask"][b]]]
        moved = rows[user] + rows["shift", 0]
        if places:
            moved = moved + np.mean([rows[place] for place in places], axis=0)
        for row in [user, positive, *places]:
            add(row, 0.0)
        for j in batch["items"][b, 1:]:
            near, far = moved - rows[positive], moved - rows["item", j]
            active = near @ near - far @ far + MARGIN > 0
            add(("item", j), active * 2 * far)
            add(positive, active * -2 * near)
            for row in (user, ("shift", 0)):
                add(row, active * 2 * (near - far))
            for place in places:
                add(place, active * 2 * (near - far) / len(places))
    return found


def row_wise(
    config: OptimizerConfig, start: Tables, batches: list[Any], frozen: str = ""
) -> list[Tables]:
    """Tables after each step; each row has a state of its own, changed when it is used."""
    rows = {(name, n): row for name, table in start.items() for n, row in enumerate(table)}
    states: dict[RowId, np.ndarray] = {}
    visited = []
    for t, batch in enumerate(batches):
        gradients = row_gradients(rows, batch)
        gradients = {row: g for row, g in gradients.items() if row[0] != frozen}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, config.gradient_clip / norm) if config.gradient_clip else 1.0
        rate = config.learning_rate
        if config.schedule == "exponential":
            rate *= config.decay_rate ** (t // 2)
        for row, g in gradients.items():
            g, x = scale * g, rows[row]
            if config.name == "sgd":
                step = g
            elif config.name == "adagrad":
                states[row] = states.get(row, np.full(DIM, 0.1)) + g**2
                step = g / np.sqrt(states[row] + 1e-7)
            else:
                m, v = states.get(row, np.zeros((2, DIM)))
                states[row] = np.stack([0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2])
                m, v = states[row] / [[1 - 0.9 ** (t + 1)], [1 - 0.999 ** (t + 1)]]
                step = m / (np.sqrt(v) + 1e-8)
                if config.name == "adamw":
                    step = step + config.weight_decay * x
            moved = x - rate * step
            rows[row] = moved if row[0] == "shift" else oracles.project(moved, RADIUS)
        visited.append(
            {name: np.array([rows[name, n] for n in range(len(x))]) for name, x in start.items()}
        )
    return visited


def tables_of_size(size: str, scale: float = 0.6) -> Tables:
    """Some rows are outside of the ball, where they stay until they are used."""
    rng = np.random.default_rng(9)
    sizes = dict(zip(("user", "item"), SIZES[size], strict=True)) | {"shift": 1}
    tables = {name: scale * rng.normal(size=(number, DIM)) for name, number in sizes.items()}
    return {name: table.astype(np.float32).astype(np.float64) for name, table in tables.items()}


def train_rows(
    config: OptimizerConfig,
    start: Tables,
    batches: list[Any],
    frozen: str = "",
    only_touched: bool = True,
    **loss: Any,
) -> list[TrainState]:
    """The states at the start and after each step by the library."""
    run = Config(
        model=ModelConfig(name="cml", dim=DIM, clip_norm=RADIUS),
        loss=LossConfig(margin=MARGIN, **loss),
        optimizer=config,
        training=TrainingConfig(freeze_user=frozen == "user", freeze_item=frozen == "item"),
    )
    model, optimizer = MeanOfHistory(DIM), optimizers.build(config, run.training, 2)
    tables = {name: jnp.asarray(table, jnp.float32) for name, table in start.items()}
    params = {"user": tables["user"], "item": tables["item"]}
    state = TrainState.of({**params, "relation": {"shift": tables["shift"]}}, optimizer)

    @jax.jit
    def step(state: TrainState, last_use: LastUse, batch: Batch) -> tuple[TrainState, LastUse]:
        used = last_use if only_touched else None
        state, used = training.train_step(state, batch, model, optimizer, run, used)
        return state, used or last_use

    # Whatever is in the scratch at the start must not matter.
    rng = np.random.default_rng(10)
    last_use = LastUse(
        *(jnp.asarray(rng.integers(-1, 40, len(start[name])), jnp.int32) for name in params)
    )
    states = [state]
    for batch in batches:
        state, last_use = step(state, last_use, as_batch(batch))
        states.append(state)
    return states


def flat(state: TrainState) -> Tables:
    params = {"user": state.params["user"], "item": state.params["item"]}
    return {name: np.asarray(x) for name, x in (params | state.params["relation"]).items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        pytest.param({"name": "sgd", "gradient_clip": 3.0}, "", id="sgd clipped"),
        pytest.param({"name": "adagrad"}, "", id="adagrad"),
        pytest.param({"name": "adam", "schedule": "exponential", "decay_rate": 0.5}, "", id="adam"),
        pytest.param({"name": "adamw", "weight_decay": 0.4}, "", id="adamw"),
        pytest.param({"name": "adam", "gradient_clip": 3.0}, "user", id="users frozen"),
        pytest.param({"name": "adamw", "gradient_clip": 3.0}, "item", id="items frozen"),
    ],
)
def test_only_the_rows_that_a_batch_uses_are_updated(
    options: dict[str, Any], frozen: str, size: str
) -> None:
    config = OptimizerConfig(learning_rate=0.05, rows="touched", **options)
    start, steps = tables_of_size(size), batches(size)
    states = train_rows(config, start, steps, frozen)
    assert_same_path([flat(state) for state in states[1:]], row_wise(config, start, steps, frozen))

    shapes = {name: start[name].shape for name in ("user", "item")}
    for before, after, batch in zip(states, states[1:], steps, strict=False):
        valid = batch["weight"] > 0
        places = batch["mask"] & valid[:, None]
        used = {
            "user": batch["users"][valid],
            "item": np.append(batch["items"][valid], batch["history"][places]),
        }
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            for name, shape in shapes.items():
                if x.shape == shape:  # A table, or the optimizer's state of one.
                    others = np.setdiff1d(np.arange(len(x)), used[name])
                    np.testing.assert_array_equal(x[others], y[others])
    for name in shapes:
        table, first = flat(states[-1])[name], flat(states[0])[name]
        if name == frozen:
            np.testing.assert_array_equal(table, first)
        else:
            assert (table[0] != first[0]).all()  # By the one step that uses row 0.
            outside = np.linalg.norm(table, axis=1) > RADIUS + 1e-3
            assert outside.any() == (size == "large")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options", [{"name": "sgd"}, {"name": "adagrad"}, {"name": "adagrad", "gradient_clip": 2.0}]
)
def test_sgd_and_adagrad_move_no_other_rows_anyway(options: dict[str, Any], size: str) -> None:
    config = OptimizerConfig(learning_rate=0.05, **options)
    # All in the ball.
    start, steps = tables_of_size(size, scale=0.2), batches(size)
    touched, every = (
        train_rows(config, start, steps, only_touched=only_touched, reduction="mean")[-1]
        for only_touched in (True, False)
    )
    assert touched.triplets == every.triplets
    for x, y in zip(jax.tree.leaves(touched), jax.tree.leaves(every), strict=True):
        assert_close(x, y, 1e-6)


def test_adam_leaves_rows_alone_that_a_dense_one_moves_on() -> None:
    config = OptimizerConfig(learning_rate=0.05)
    start, steps = tables_of_size("large", scale=0.2), batches("large")
    touched, every = (
        flat(train_rows(config, start, steps, only_touched=only_touched)[-1])
        for only_touched in (True, False)
    )
    assert np.abs(touched["item"] - every["item"]).max() > 0.01


@pytest.mark.parametrize("rows", [3, 8, 9, 20])
def test_distinct_rows(rows: int) -> None:
    """Of 9 ids, some past the end: a place of its own for each row that is used, and no other."""
    ids = np.array([2, 0, 2, rows, 1, 2, 0, rows + 3, rows - 1])
    scratch = jnp.asarray(np.random.default_rng(1).integers(-1, 30, rows), jnp.int32)
    last, found, places = optimizers._distinct(scratch, jnp.asarray(ids, jnp.int32), ())
    assert last.shape == (rows,)
    found, places = np.asarray(found), np.asarray(places)
    assert len(found) <= max(rows, len(ids))
    used = sorted({row for row in ids.tolist() if row < rows})
    assert sorted(found[found < rows].tolist()) == used
    for row, place in zip(ids, places, strict=True):
        if row < rows:
            assert found[place] == row
        else:
            assert place >= len(found)

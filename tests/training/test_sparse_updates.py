"""Steps that update only the rows that a batch uses, and frozen tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.quadratic import START, Tables, assert_close, assert_same_path
from support.row_wise import (
    DIM,
    MARGIN,
    RADIUS,
    SIZES,
    MeanOfHistory,
    as_batch,
    batches,
    counts_of,
    row_wise,
    tables_of_size,
)

from hlr_jax.config import Config, OptimizerConfig, TrainingConfig
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models.cml import CML
from hlr_jax.parallel.layout import ALONE
from hlr_jax.training import exchange
from hlr_jax.training.exchange import DenseExchange, Exchange, SparseExchange
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.objective import Objective
from hlr_jax.training.optimizers import NamedOptimizer, frozen_tables
from hlr_jax.training.state import TrainState
from hlr_jax.training.step import train_step
from hlr_jax.types import HistoryIds, PerExampleNegatives, TripletBatch


@jax.jit
def step(
    state: TrainState,
    batch: TripletBatch,
    objective: Objective,
    optimizer: NamedOptimizer,
    exchange: Exchange,
) -> tuple[TrainState, Exchange]:
    return train_step(state, batch, objective, optimizer, exchange, NoNeighbours())


def train_rows(
    config: OptimizerConfig,
    start: Tables,
    batches: list[Any],
    frozen: str = "",
    is_sparse: bool = True,
    reduction: str = "sum",
) -> list[TrainState]:
    """The states at the start and after each step by the library, two steps an epoch."""
    freezing = TrainingConfig(freeze_user=frozen == "user", freeze_item=frozen == "item")
    run = Config(optimizer=config, training=freezing)
    optimizer = NamedOptimizer.of(run, 2, counts_of(start))
    objective = Objective(
        MeanOfHistory(DIM, Ball(RADIUS)),
        Hinge(MARGIN),
        reduction=reduction,
        frozen=frozen_tables(run),
    )
    tables = {name: jnp.asarray(table, jnp.float32) for name, table in start.items()}
    params = {"user": tables["user"], "item": tables["item"]}
    state = TrainState.of({**params, "relation": {"shift": tables["shift"]}}, optimizer)
    used: Exchange = DenseExchange()
    if is_sparse:
        # Whatever is in the scratch at the start must not matter.
        rng = np.random.default_rng(10)
        scratch = {
            name: jnp.asarray(rng.integers(-1, 40, len(start[name])), jnp.int32) for name in params
        }
        used = SparseExchange(**scratch, layout=ALONE)
    states = [state]
    for batch in batches:
        state, used = step(state, as_batch(batch), objective, optimizer, used)
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
        pytest.param(
            {"name": "adamw", "weight_decay": 0.4, "weight_decay_exponent": 0.7},
            "",
            id="adamw by frequency",
        ),
        pytest.param({"name": "adam", "gradient_clip": 3.0}, "user", id="users frozen"),
        pytest.param({"name": "adamw", "gradient_clip": 3.0}, "item", id="items frozen"),
    ],
)
def test_only_the_rows_that_a_batch_uses_are_updated(
    options: dict[str, Any], frozen: str, size: str
) -> None:
    config = OptimizerConfig(learning_rate=0.05, updates="sparse", **options)
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
    sparse, every = (
        train_rows(config, start, steps, is_sparse=is_sparse, reduction="mean")[-1]
        for is_sparse in (True, False)
    )
    assert sparse.loss_terms == every.loss_terms
    for x, y in zip(jax.tree.leaves(sparse), jax.tree.leaves(every), strict=True):
        assert_close(x, y, 1e-6)


def test_adam_leaves_rows_alone_that_a_dense_one_moves_on() -> None:
    config = OptimizerConfig(learning_rate=0.05)
    start, steps = tables_of_size("large", scale=0.2), batches("large")
    sparse, every = (
        flat(train_rows(config, start, steps, is_sparse=is_sparse)[-1])
        for is_sparse in (True, False)
    )
    assert np.abs(sparse["item"] - every["item"]).max() > 0.01


@pytest.mark.parametrize("rows", [3, 8, 9, 20])
def test_distinct_rows(rows: int) -> None:
    """Of 9 ids, some past the end: a place of its own for each row that is used, and no other."""
    ids = np.array([2, 0, 2, rows, 1, 2, 0, rows + 3, rows - 1])
    scratch = jnp.asarray(np.random.default_rng(1).integers(-1, 30, rows), jnp.int32)
    last, found, places = exchange._distinct(scratch, jnp.asarray(ids, jnp.int32), ())
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


# --- frozen tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", ["user", "item", None])
def test_a_step_neither_moves_nor_projects_a_frozen_table(frozen: str | None) -> None:
    """Rows outside of the ball, as pretrained ones may be, stay there bitwise."""
    config = Config(
        optimizer=OptimizerConfig(learning_rate=0.01),
        training=TrainingConfig(freeze_user=frozen == "user", freeze_item=frozen == "item"),
    )
    optimizer = NamedOptimizer.of(config, steps_per_epoch=1)
    objective = Objective(CML(4, Ball(1.0)), Hinge(50.0), frozen=frozen_tables(config))
    tables = {name: jnp.asarray(2 * START[name], jnp.float32) for name in ("user", "item")}
    before = tables | {"relation": {}}
    users, positives, negatives = (
        jnp.asarray(ids, jnp.int32) for ids in ([0, 1, 2], [0, 2, 4], [[1], [3], [0]])
    )
    own = PerExampleNegatives(negatives, jnp.ones((3, 1), bool))
    batch = TripletBatch(users, positives, own, HistoryIds.empty(3), jnp.ones(3))
    state = TrainState.of(before, optimizer)
    after = step(state, batch, objective, optimizer, DenseExchange())[0].params
    for name in ("user", "item"):
        norms = np.linalg.norm(np.asarray(after[name]), axis=1)
        if name == frozen:
            np.testing.assert_array_equal(after[name], before[name])
            assert norms.max() > 1.5
        else:
            assert norms.max() <= 1 + 1e-6
            projected = oracles.project(before[name], 1.0)
            assert np.abs(after[name] - projected).max() > 1e-3

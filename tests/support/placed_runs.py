"""Runs that are spread over devices in every way, and one device's numbers to compare with."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hlr_jax.config import (
    Config,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.models.registry import RELATIONS
from hlr_jax.parallel import layout
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.epoch_order import num_steps
from hlr_jax.training.epoch import Recipe, advance
from hlr_jax.training.inputs import make_objective, make_recipe, shuffled_rows, training_positives
from hlr_jax.training.state import TrainState, new_params, new_state, state_shapes

PARTS, BATCH = 8, 30


@functools.cache
def data(users: int = 53, items: int = 41) -> Dataset:
    """Users with 0 to 12 interactions; neither number is divided by any number of devices."""
    rng = np.random.default_rng(0)
    pairs = [(user, i) for user in range(users) for i in rng.permutation(items)[: user % 13]]
    split = rng.random(len(pairs))

    def those(chosen: np.ndarray) -> Interactions:
        times = np.flatnonzero(chosen).astype(np.int32)
        return Interactions.from_pairs(*np.array(pairs)[chosen].T, users, items, times)

    bounds = ((0, 0.7), (0.7, 0.85), (0.85, 1))
    parts = [those((split >= low) & (split < high)) for low, high in bounds]
    return Dataset("made up", *parts, np.arange(users), np.arange(items))


def config_of(name: str = "cml", update: str = "dense", **changes: Any) -> Config:
    """A small model, trained by Adam; `changes` are sections."""
    slots = {"slots": 3} if "slots" in RELATIONS.options(name) else {}
    config = Config(
        model=ModelConfig(name=name, dim=5, options=slots),
        sampling=SamplingConfig(history_length=3, options={"num_negatives": 2}),
        loss=LossConfig(name="warp" if name == "cml" else "hinge"),
        optimizer=OptimizerConfig(learning_rate=0.01, updates=update),
        training=TrainingConfig(batch_size=BATCH, epochs=2),
        evaluation=EvaluationConfig(cutoffs=(5,), bootstrap=0),
        sharding=ShardingConfig(user_parts=PARTS),
    )
    return dataclasses.replace(config, **changes)


def placed(mode: str, count: int, shards: int = 1, dataset: Dataset | None = None) -> Placement:
    """A placement on so many devices.

    Args:
      mode: replicated, as in one process; everywhere, the same on a mesh of several processes;
        users, sharded; or both, users and items in so many shards.
    """
    dataset = dataset or data()
    users, items = dataset.num_users, dataset.num_items
    if mode == "replicated":
        return Placement.replicated(count, users, items, PARTS)
    kinds = {
        "everywhere": layout.REPLICATED,
        "users": layout.USERS_SHARDED,
        "both": layout.BOTH_SHARDED,
    }
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, shards), layout.MESH)
    return Placement(mesh, kinds[mode], users, items, PARTS)


def start(
    config: Config, placement: Placement, dataset: Dataset | None = None
) -> tuple[TrainState, Recipe]:
    """The state before the first step, and what steps do."""
    objective = make_objective(config, build.build_model(config), placement.num_items, None)
    recipe = make_recipe(config, objective, dataset or data(), steps_per_epoch=1)
    params = new_params(jax.random.key(0), objective, placement)
    like = state_shapes(params, recipe.optimizer, placement)
    state = new_state(params, recipe.optimizer, like)
    return state, jax.tree.map(placement.put, recipe)


def trained(
    config: Config, placement: Placement, steps: int, dataset: Dataset | None = None
) -> tuple[TrainState, list[float]]:
    """The state after so many steps, and the loss of each epoch."""
    dataset = dataset or data()
    state, recipe = start(config, placement, dataset)
    positives = training_positives(placement, dataset, config)
    batch_size = config.training.batch_size
    in_epoch = num_steps(len(positives), batch_size)
    losses: list[float] = []
    for first in range(0, steps, in_epoch):
        key = jax.random.fold_in(jax.random.key(1), len(losses))
        rows = shuffled_rows(positives, batch_size, key)
        span = (0, min(in_epoch, steps - first))
        state = advance(state.with_new_sums(), rows, span, recipe, placement)
        losses.append(state.mean_loss())
    return state, losses


def recommender(
    config: Config, placement: Placement, state: TrainState, dataset: Dataset | None = None
) -> Recommender:
    """What measures the state's parameters."""
    model = build.build_model(config)
    return Recommender(config, dataset or data(), model, state.params, placement)


def used(state: TrainState, placement: Placement) -> list[np.ndarray]:
    """All arrays, without the rows that fill shards up."""

    def is_table(x: jax.Array) -> bool:
        return x.ndim == 2 and (x.shape[1] % 5 == 0 or x.shape[1] == 1)

    arrays = []
    for x in jax.tree.leaves(state):
        unused = {placement.num_rows[name]: n for name, n in placement.used_rows.items()}
        rows = unused.get(x.shape[0], x.shape[0]) if is_table(x) else None
        arrays.append(np.asarray(x)[:rows] if rows else np.asarray(x))
    return arrays


def oracle_params(state: TrainState, placement: Placement) -> dict[str, np.ndarray]:
    """The parameters as the oracles take them, without the rows that fill shards up."""
    tables = {
        name: np.asarray(state.params[name], np.float64)[:rows]
        for name, rows in placement.used_rows.items()
    }
    relation = {name: np.asarray(x, np.float64) for name, x in state.params["relation"].items()}
    return tables | relation


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number.

    A table of users without rows has no numbers.
    """
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        assert np.abs(x - y).max(initial=0) <= bound * np.abs(y).max(initial=0)

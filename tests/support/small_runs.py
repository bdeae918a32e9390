"""Runs of a few steps on a small planted data set, for tests of training."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from support.planted import GROUPS, planted_of

from hlr_jax import files
from hlr_jax.config import (
    Config,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.models.registry import RELATIONS
from hlr_jax.models.relation import Relation
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment
from hlr_jax.sampling import batches
from hlr_jax.sampling.epoch_order import in_batches, num_steps, shuffled, split
from hlr_jax.sampling.sources import Source
from hlr_jax.training import loop
from hlr_jax.training.epoch import EpochRows, Recipe, advance
from hlr_jax.training.inputs import make_objective, make_recipe, training_positives
from hlr_jax.training.loop import Program, Record
from hlr_jax.training.state import Keys, TrainState, new_params, new_state, state_shapes
from hlr_jax.training.store import MemoryStore, Progress
from hlr_jax.types import Params

USERS, ITEMS = 24, 30
# 144 training pairs: eleven full batches and one of a single row.
BATCH, STEPS = 13, 12


@functools.cache
def planted() -> Dataset:
    """A user likes 9 of the 10 items of its group: 6 for training, 1 for validation, 2 for test."""
    return planted_of(USERS, ITEMS, (6, 7, 9))


def with_times(data: Dataset) -> Dataset:
    """The same, with the interactions in some order; those of training came first."""
    rng, start, parts = np.random.default_rng(5), 0, {}
    for name in ("train", "valid", "test"):
        rows = getattr(data, name)
        times = (start + rng.permutation(len(rows))).astype(np.int32)
        parts[name], start = dataclasses.replace(rows, times=times), start + len(rows)
    return dataclasses.replace(data, **parts, _stored=None)


def epoch_order(key: jax.Array, num_rows: int, batch_size: int) -> np.ndarray:
    """Every row once, in the order that a key draws, in batches; -1 pads the last."""
    places = in_batches(np.arange(num_rows), batch_size)
    bounds = np.array([0, num_rows], np.int32)
    return np.asarray(jax.jit(shuffled)(key, places, bounds))


def data_for(model: str) -> Dataset:
    """The planted data; with the group of each item, or times, for a model that reads these."""
    if RELATIONS.get(model).reads_order:
        return with_times(planted())
    if not RELATIONS.get(model).uses_features:
        return planted()
    groups = np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS]
    return dataclasses.replace(planted(), features=groups)


def config_of(
    model: str = "cml",
    options: dict[str, Any] | None = None,
    negatives: int = 2,
    learning_rate: float = 0.03,
    seed: int = 1,
    **fields: Any,
) -> Config:
    """A small model; `options` are the model's, `fields` those of `training`."""
    fields = {"epochs": 3, "batch_size": BATCH, "patience": 0} | fields
    own = {"slots": 4} if "slots" in RELATIONS.options(model) else {}
    return Config(
        model=ModelConfig(name=model, dim=6, options=own | (options or {})),
        sampling=SamplingConfig(
            history="recent" if RELATIONS.get(model).reads_order else "uniform",
            history_length=4,
            options={"num_negatives": negatives},
        ),
        loss=LossConfig(options={"margin": 0.5}),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        training=TrainingConfig(**fields),
        seed=seed,
    )


def with_radius(config: Config, radius: float, geometry: str = "ball") -> Config:
    """The same in a geometry of another radius."""
    return dataclasses.replace(config, geometry=GeometryConfig(geometry, {"radius": radius}))


def with_loss(config: Config, name: str, margin: float = 0.5, **fields: Any) -> Config:
    """The same with another loss that has a margin; `fields` are those of `loss`."""
    loss = LossConfig(name=name, options={"margin": margin}, **fields)
    return dataclasses.replace(config, loss=loss)


draw_batch = jax.jit(batches.draw_batch, static_argnames="axes")


def train(config: Config, workdir: pathlib.Path | None = None) -> Params:
    """The parameters that a whole run selects."""
    data = data_for(config.model.name)
    return experiment.train(config, workdir, data, show_progress=False).params


def assert_same(one: Any, two: Any) -> None:
    """Check that two trees are equal bit by bit."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(left, right)


def differ(one: Params, two: Params) -> bool:
    """Whether any number of two trees differs."""
    return any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True))


def read_log(workdir: pathlib.Path) -> list[Record]:
    """What a run wrote of its epochs, without times."""
    records = files.read_json_lines(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@dataclasses.dataclass(frozen=True)
class Run:
    """What `experiment.train` puts together, for tests of its parts.

    Attributes:
      program: what `fit` trains, placed as the configuration asks.
    """

    config: Config
    program: Program

    @classmethod
    def of(cls, config: Config, dataset: Dataset | None = None) -> "Run":
        """A run on the planted data, or on others."""
        data = dataset or data_for(config.model.name)
        model = build.build_model(config)
        placement = Placement.of(config.sharding, model, data.num_users, data.num_items)
        objective = make_objective(config, model, data.num_items, data.features)
        positives = training_positives(placement, data, config)
        steps = num_steps(len(positives), config.training.batch_size)
        recipe = make_recipe(config, objective, data, steps)
        return cls(config, Program(config, recipe, placement, positives))

    @property
    def recipe(self) -> Recipe:
        return self.program.recipe

    @property
    def model(self) -> Relation:
        return self.recipe.objective.model

    @property
    def placement(self) -> Placement:
        return self.program.placement

    @property
    def source(self) -> Source:
        return self.program.positives.source

    def on(self, devices: int) -> Placement:
        """A placement on so many devices, everything replicated."""
        return Placement.replicated(devices, USERS, ITEMS)

    def params(self, placement: Placement | None = None) -> Params:
        """The parameters before the first step, on one device or as placed."""
        num_features = data_for(self.config.model.name).num_features
        key = Keys.of(self.config.seed).init
        return new_params(key, self.recipe.objective, placement or self.on(1), num_features)

    def state(self, devices: int = 1) -> TrainState:
        """The state before the first step, on so many devices."""
        placement = self.on(devices)
        params = self.params(placement)
        like = state_shapes(params, self.recipe.optimizer, placement)
        return new_state(params, self.recipe.optimizer, like)

    def order(self) -> np.ndarray:
        """An epoch's rows, `[steps, batch size]`."""
        batch_size = self.config.training.batch_size
        return epoch_order(jax.random.key(7), len(self.program.positives), batch_size)

    def rows(
        self, devices: int = 1, order: np.ndarray | None = None, key: jax.Array | None = None
    ) -> EpochRows:
        """An epoch's rows on so many devices."""
        placement = self.on(devices)
        order = split(self.order() if order is None else order, devices)
        source = jax.tree.map(placement.put, jax.tree.map(np.asarray, self.source))
        key = placement.put(jax.random.key(8) if key is None else key)
        return EpochRows(source, placement.join(list(order)), key)

    def steps(
        self, state: TrainState, start: int, stop: int, rows: EpochRows | None = None
    ) -> TrainState:
        """The state after these steps; the one before is donated. On as many devices as it is."""
        placement = self.on(len(state.step.sharding.device_set))
        recipe = jax.tree.map(placement.put, self.recipe)
        rows = rows or self.rows(placement.num_devices)
        return advance(state, rows, (start, stop), recipe, placement)

    def fit(
        self,
        validate: Callable[[Params], dict[str, float]] = lambda params: {},
        store: Any = None,
        **kwargs: Any,
    ) -> tuple[Params, Progress]:
        """Train from the start, without files unless a store is given."""
        return loop.fit(
            self.program,
            self.params(self.placement),
            validate,
            store or MemoryStore(),
            show_progress=False,
            **kwargs,
        )


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask to stop after so many steps; the host looks after every single one."""

    class Impatient(loop.StopRequest):
        looks = 0

        @property
        def received(self) -> bool:
            Impatient.looks += 1
            return Impatient.looks == steps

    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(loop, "StopRequest", Impatient)

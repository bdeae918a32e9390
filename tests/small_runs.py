"""A small planted data set, its configuration, and runs of it, for tests of training."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlr_jax import files, models
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.models import relation as base
from hlr_jax.parallel import devices
from hlr_jax.parallel.layout import REPLICATED
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling import epoch_order as batching
from hlr_jax.sampling import sources
from hlr_jax.training import loop as fitting
from hlr_jax.training import optimizers
from hlr_jax.training import step as training
from hlr_jax.training.loop import MemoryStore, Progress
from hlr_jax.training.objective import Params
from hlr_jax.training.step import Keys, TrainState

GROUPS, USERS, ITEMS = 3, 24, 30


def planted_of(num_users: int, num_items: int, until: tuple[int, int, int]) -> Dataset:
    """Users and items of three groups; a user likes items of its group, in random order.

    Args:
      until: where in this order its items of training, of validation, and of test end.
    """
    generator = np.random.default_rng(0)
    splits: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(num_users):
        own = generator.permutation(np.arange(user % GROUPS, num_items, GROUPS)).tolist()
        for split, start, end in zip(splits, (0, *until[:2]), until, strict=True):
            split += [(user, item) for item in own[start:end]]
    parts = [
        Interactions.from_pairs(*np.array(pairs).T, num_users=num_users, num_items=num_items)
        for pairs in splits
    ]
    return Dataset("planted", *parts, user_ids=np.arange(num_users), item_ids=np.arange(num_items))


@functools.cache
def planted() -> Dataset:
    """A user likes 9 of the 10 items of its group."""
    return planted_of(USERS, ITEMS, (6, 7, 9))


def data_for(model: str) -> Dataset:
    """The planted data; with the group of each item for a model that reads features."""
    if not base.get(model).uses_features:
        return planted()
    groups = np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS]
    return dataclasses.replace(planted(), features=groups)


# 144 training pairs: eleven full batches and one of a single row.
BATCH, STEPS = 13, 12


def config_of(
    model: str = "cml",
    options: dict[str, Any] | None = None,
    negatives: int = 2,
    learning_rate: float = 0.03,
    seed: int = 1,
    **fields: Any,
) -> Config:
    """A small model; `fields` are those of `training`."""
    fields = {"epochs": 3, "batch_size": BATCH, "patience": 0} | fields
    own = {"slots": 4} if "slots" in base.options(base.get(model)) else {}
    return Config(
        model=ModelConfig(name=model, dim=6, options=own | (options or {})),
        sampling=SamplingConfig(negatives=negatives, history_length=4),
        loss=LossConfig(margin=0.5),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        training=TrainingConfig(**fields),
        seed=seed,
    )


draw_batch = jax.jit(sampling.draw_batch, static_argnames=("negatives", "history_length"))


def train(config: Config, workdir: pathlib.Path | None = None) -> Params:
    data = data_for(config.model.name)
    return experiment.train(config, workdir, data, show_progress=False).params


def assert_same(one: Any, two: Any) -> None:
    """Bitwise."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(left, right)


def differ(one: Params, two: Params) -> bool:
    return any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True))


def read_log(workdir: pathlib.Path) -> list[fitting.Record]:
    """What a run wrote of its epochs, without times."""
    records = files.read_json_lines(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@dataclasses.dataclass
class Run:
    """What `fit` puts together, for tests of its parts."""

    config: Config
    model: models.Relation
    optimizer: Any
    source: sources.Source

    @classmethod
    def of(cls, config: Config) -> "Run":
        model = models.build(config.model.name, config.model.dim, config.model.options)
        return cls(
            config,
            model,
            optimizers.build(config.optimizer, config.training, STEPS),
            sources.training_source(planted().train, features=data_for(config.model.name).features),
        )

    def params(self) -> Params:
        key = Keys.of(self.config.seed).init
        num_features = data_for(self.config.model.name).num_features
        return training.init_params(key, self.model, USERS, ITEMS, num_features)

    def state(self) -> TrainState:
        return TrainState.of(self.params(), self.optimizer)

    def order(self) -> np.ndarray:
        batch_size = self.config.training.batch_size
        return batching.epoch_order(jax.random.key(7), len(self.source.users), batch_size)

    def steps(
        self,
        state: TrainState,
        start: int,
        stop: int,
        order: np.ndarray | None = None,
        key: jax.Array | None = None,
        parts: int = 1,
    ) -> TrainState:
        """On so many devices."""
        mesh = Mesh(jax.local_devices()[:parts], REPLICATED.batch)
        state, source = jax.device_put((state, self.source), NamedSharding(mesh, PartitionSpec()))
        return training.train_steps(
            state,
            source,
            devices.split(self.order() if order is None else order, parts),
            jax.random.key(8) if key is None else key,
            start,
            stop,
            self.model,
            self.optimizer,
            self.config,
        )

    @property
    def placement(self) -> Placement:
        return Placement.of(self.config, self.model, USERS, ITEMS)

    def fit(
        self, validate: Callable[[Params], dict[str, float]], **kwargs: Any
    ) -> tuple[Params, Progress]:
        return fitting.fit(
            self.model,
            self.placement,
            self.placement.params(self.params()),
            self.placement.positives(planted().train.offsets, lambda users: self.source),
            self.config,
            validate,
            kwargs.pop("store", MemoryStore()),
            show_progress=False,
            **kwargs,
        )


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask to stop after so many steps; the host looks after every single one."""

    class Impatient(fitting.StopRequest):
        looks = 0

        @property
        def received(self) -> bool:
            Impatient.looks += 1
            return Impatient.looks == steps

        @received.setter
        def received(self, value: bool) -> None:
            pass

    monkeypatch.setattr(fitting, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "StopRequest", Impatient)

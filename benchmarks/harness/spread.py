"""Models on several devices, ready to step: what `scaling.py` measures."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from harness import traffic
from hlr_jax import models
from hlr_jax.config import Config, ModelConfig, OptimizerConfig, SamplingConfig, TrainingConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.parallel import layout, processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import recommender
from hlr_jax.training import optimizers
from hlr_jax.training import step as training

DIM, SLOTS, HISTORY, PARTS = 32, 20, 20, 8
# Users, items, interactions of a user.
DATASET = (20_000, 5_000, 20)
# Of a timed call, which is short so that some calls are not disturbed on a machine that others use.
STEPS = {"cml": 5, "hlr": 1}
MODES = ("replicated", "users cut", "both cut")


class Case(NamedTuple):
    """A model, which rows Adam updates, how the tables are spread, and the batch of all devices."""

    model: str
    rows: str
    mode: str
    batch: int


def made_up(users: int, items: int, per_user: int) -> Dataset:
    """Users with equally many interactions, spread over all items."""
    rng = np.random.default_rng(0)
    first = rng.integers(items, size=(users, 1))
    own = np.sort((first + np.arange(per_user) * (items // per_user)) % items, axis=1)
    offsets = np.arange(users + 1, dtype=np.int64) * per_user
    train = Interactions(offsets, own.astype(np.int32).ravel(), items)
    nothing = Interactions(np.zeros(users + 1, np.int64), np.zeros(0, np.int32), items)
    return Dataset("made up", train, nothing, nothing, np.arange(users), np.arange(items))


def placed(mode: str, count: int, dataset: Dataset) -> Placement:
    """`replicated`, `users cut`, or `both cut` (items in two blocks), as the library does it.

    Args:
      count: of devices, of all processes together.
    """
    users, items = dataset.num_users, dataset.num_items
    if mode == "replicated" and processes.count() == 1:
        return Placement.replicated(count, users, items, PARTS)
    blocks = 2 if mode == "both cut" else 1
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, blocks), layout.MESH)
    kind = {
        "replicated": layout.WHOLE,
        "users cut": layout.USERS_CUT,
        "both cut": layout.BOTH_CUT,
    }[mode]
    return Placement(mesh, kind, users, items, PARTS)


class Contestant:
    """A case on a number of devices of all processes."""

    def __init__(self, case: Case, count: int, dataset: Dataset) -> None:
        self.case, self.dataset = case, dataset
        has_history = case.model != "cml"
        self.config = Config(
            model=ModelConfig(case.model, dim=DIM, options={"slots": SLOTS} if has_history else {}),
            sampling=SamplingConfig(history_length=HISTORY),
            optimizer=OptimizerConfig(rows=case.rows),
            training=TrainingConfig(batch_size=case.batch),
        )
        self.placement = placed(case.mode, count, dataset)
        self.model = models.build(case.model, DIM, self.config.model.options)
        self.optimizer = optimizers.build(self.config.optimizer, self.config.training, 1)
        params = self.placement.new_params(jax.random.key(0), self.model, self.config)
        self.state = self.placement.state(params, self.optimizer)
        self.positives = recommender.training_positives(self.placement, dataset, self.config)
        self.order = self.placement.order(jax.random.key(1), self.positives, case.batch)
        self.key = jax.random.key(2)

    @property
    def steps(self) -> int:
        """Of a timed call."""
        return STEPS[self.case.model]

    def step(self, steps: int | None = None) -> None:
        """Take the steps of a timed call, or so many, and wait for them."""
        steps = steps or self.steps
        self.state = self.placement.advance(
            *(self.state, self.positives.source, self.order, self.key, 0, steps),
            *(self.model, self.optimizer, self.config),
        )
        jax.block_until_ready(self.state)

    def described(self) -> dict[str, Any]:
        """What it is, and what a device sends and holds."""
        found = self.traffic()
        return {
            **self.case._asdict(),
            "devices": self.placement.num_devices,
            "steps": self.steps,
            "users": self.dataset.num_users,
            "items": self.dataset.num_items,
            "interactions": len(self.dataset.train),
            "dim": DIM,
            "slots": SLOTS if self.model.uses_history else 0,
            "history": HISTORY if self.model.uses_history else 0,
            "sent_bytes": found.sent_bytes,
            "meetings": found.meetings,
            "held_bytes": self.bytes_per_device(),
        }

    def traffic(self) -> traffic.Traffic:
        """Of a step."""
        arguments = (self.state, self.positives.source, self.order, self.key, 0, 1)
        static: tuple[Any, ...] = (self.model, self.optimizer, self.config)
        program: Any = training.train_steps
        if self.placement.layout != layout.REPLICATED:
            program = training.train_steps_on_mesh
            static += (self.placement.layout, self.placement.mesh)
        text = program.lower(*arguments, *static).compile().as_text()
        return traffic.of_program(text, self.placement.num_devices)

    def bytes_per_device(self) -> dict[str, int]:
        """The most that any device holds, by what it is."""
        tables = {name: self.state.params[name] for name in ("user", "item")}
        held = {name: _most_bytes(x) for name, x in tables.items()}
        held["optimizer"] = sum(map(_most_bytes, jax.tree.leaves(self.state.opt_state)))
        distinct = {id(x): x for x in jax.tree.leaves(self.positives.source)}
        held["interactions"] = sum(map(_most_bytes, distinct.values()))
        return held


def _most_bytes(x: jax.Array) -> int:
    return max(shard.data.nbytes for shard in x.addressable_shards)

"""Cases of models on several devices, ready to take steps: what `measure.py` times."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.scaling import traffic
from hlr_jax.config import (
    Config,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.parallel import layout, processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.training import epoch
from hlr_jax.training.inputs import (
    make_objective,
    make_recipe,
    shuffled_rows,
    training_positives,
)
from hlr_jax.training.state import new_params, new_state, state_shapes

DIM, SLOTS, HISTORY, PARTS = 32, 20, 20, 8
# Users, items, interactions of a user.
DATASET = (20_000, 5_000, 20)
# Steps of a timed call. Calls are short, so that some are undisturbed on a machine others use.
STEPS = {"cml": 5, "hlr": 1}
MODES = ("replicated", "users sharded", "both sharded")


class Case(NamedTuple):
    """What is measured on a number of devices.

    Attributes:
      model: its name.
      update: dense or sparse: which rows Adam updates.
      mode: one of `MODES`: how the tables are spread.
      batch: triplets of a step, of all devices together.
    """

    model: str
    update: str
    mode: str
    batch: int


def made_up(users: int, items: int, per_user: int) -> Dataset:
    """Make up users with equally many interactions each, spread over all items."""
    rng = np.random.default_rng(0)
    first = rng.integers(items, size=(users, 1))
    own = np.sort((first + np.arange(per_user) * (items // per_user)) % items, axis=1)
    offsets = np.arange(users + 1, dtype=np.int64) * per_user
    train = Interactions(offsets, own.astype(np.int32).ravel(), items)
    nothing = Interactions(np.zeros(users + 1, np.int64), np.zeros(0, np.int32), items)
    return Dataset("made up", train, nothing, nothing, np.arange(users), np.arange(items))


def placed(mode: str, count: int, dataset: Dataset) -> Placement:
    """Spread over devices as the library does it: one of `MODES`, items in two shards.

    Args:
      count: of devices, of all processes together.
    """
    users, items = dataset.num_users, dataset.num_items
    if mode == "replicated" and processes.count() == 1:
        return Placement.replicated(count, users, items, PARTS)
    shards = 2 if mode == "both sharded" else 1
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, shards), layout.MESH)
    chosen = {
        "replicated": layout.REPLICATED,
        "users sharded": layout.USERS_SHARDED,
        "both sharded": layout.BOTH_SHARDED,
    }[mode]
    return Placement(mesh, chosen, users, items, PARTS)


class CaseOnDevices:
    """A case on a number of devices of all processes, with the state of its training."""

    def __init__(self, case: Case, count: int, dataset: Dataset) -> None:
        self.case, self.dataset = case, dataset
        has_history = case.model != "cml"
        config = Config(
            model=ModelConfig(case.model, dim=DIM, options={"slots": SLOTS} if has_history else {}),
            sampling=SamplingConfig(history_length=HISTORY),
            optimizer=OptimizerConfig(updates=case.update),
            training=TrainingConfig(batch_size=case.batch),
        )
        self.placement = placed(case.mode, count, dataset)
        self.model = build.build_model(config)
        objective = make_objective(config, self.model, dataset.num_items, None)
        recipe = make_recipe(config, objective, dataset, 1)
        self.recipe = jax.tree.map(self.placement.put, recipe)
        params = new_params(jax.random.key(0), objective, self.placement)
        like = state_shapes(params, recipe.optimizer, self.placement)
        self.state = new_state(params, recipe.optimizer, like)
        self.positives = training_positives(self.placement, dataset, config)
        self.rows = self.shuffled()

    def shuffled(self) -> epoch.EpochRows:
        """Shuffle the interactions for an epoch, on the host."""
        key = jax.random.key(1)
        return shuffled_rows(self.positives, self.case.batch, key)

    @property
    def steps(self) -> int:
        """Steps of a timed call."""
        return STEPS[self.case.model]

    def step(self, steps: int | None = None) -> None:
        """Take the steps of a timed call, or so many, and wait for them."""
        span = 0, steps or self.steps
        self.state = epoch.advance(self.state, self.rows, span, self.recipe, self.placement)
        jax.block_until_ready(self.state)

    def described(self) -> dict[str, Any]:
        """Describe the case, and what a device sends and holds."""
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
            "collectives": found.collectives,
            "held_bytes": self.bytes_per_device(),
        }

    def traffic(self) -> traffic.Traffic:
        """Count what a step exchanges, in the compiled program."""
        arguments: tuple[Any, ...] = (self.state, self.rows, (0, 1), self.recipe)
        program: Any = epoch.train_steps
        if not self.placement.is_one_process:
            program = epoch.train_steps_sharded()
            arguments += (self.placement.layout, self.placement.mesh)
        text = program.lower(*arguments).compile().as_text()
        return traffic.of_program(text, self.placement.num_devices)

    def bytes_per_device(self) -> dict[str, int]:
        """Find the most bytes that any device holds, of each kind."""
        tables = {name: self.state.params[name] for name in ("user", "item")}
        held = {name: _most_bytes(x) for name, x in tables.items()}
        held["optimizer"] = sum(map(_most_bytes, jax.tree.leaves(self.state.opt_state)))
        distinct = {id(x): x for x in jax.tree.leaves(self.positives.source)}
        held["interactions"] = sum(map(_most_bytes, distinct.values()))
        return held


def _most_bytes(x: jax.Array) -> int:
    return max(shard.data.nbytes for shard in x.addressable_shards)

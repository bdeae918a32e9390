"""Train and rank with hlr_jax, a number of steps or users at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shapes import Shape
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data import Dataset, Interactions
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.batches import Drawing, draw_batch
from hlr_jax.sampling.histories import HistoryDraw, UniformChoice, user_histories
from hlr_jax.sampling.sources import DeviceInteractions, Source
from hlr_jax.training.epoch import advance
from hlr_jax.training.inputs import (
    make_objective,
    make_recipe,
    shuffled_rows,
    training_positives,
)
from hlr_jax.training.rows import loss_of_batch
from hlr_jax.training.state import Sizes, TrainState, init_params, new_state, state_shapes
from hlr_jax.types import Params, TripletBatch

LEARNING_RATE = 1e-3
MARGIN = 0.5
_KEY = 2021

# As the launchers do.
devices.use_all_cores()


class Triplets(NamedTuple):
    """A batch on the host, for a peer.

    Attributes:
      users: `[B]`.
      items: `[B, 1 + K]`; the positive first.
      history, mask: `[B, P]`, or None where the model reads no history.
    """

    users: np.ndarray
    items: np.ndarray
    history: np.ndarray | None
    mask: np.ndarray | None


def config_of(shape: Shape, update: str = "dense") -> Config:
    """Configure a run with the published objective.

    Args:
      update: which rows Adam updates, as in `config.optimizer.updates`.
    """
    return Config(
        model=ModelConfig(
            name=shape.model,
            dim=shape.dim,
            options={"slots": shape.slots} if shape.has_memory else {},
        ),
        sampling=SamplingConfig(
            history_length=shape.history_length, options={"num_negatives": shape.negatives}
        ),
        loss=LossConfig(options={"margin": MARGIN}),
        optimizer=OptimizerConfig(name="adam", learning_rate=LEARNING_RATE, updates=update),
        training=TrainingConfig(batch_size=shape.batch_size),
    )


def as_dataset(interactions: Interactions) -> Dataset:
    """Take interactions as a data set that has nothing but a training split."""
    num_users, num_items = interactions.num_users, interactions.num_items
    none = Interactions.from_pairs(np.zeros(0), np.zeros(0), num_users, num_items)
    ids = np.arange(num_users), np.arange(num_items)
    return Dataset("benchmark", interactions, none, none, *ids)


def initial_params(model: Relation, interactions: Interactions) -> Params:
    """Draw tables `user [U, d]`, `item [I, d]`, and the relation's own parameters."""
    sizes = Sizes(interactions.num_users, interactions.num_items)
    return init_params(jax.random.key(_KEY), model, sizes)


def on_host(params: Params) -> dict[str, np.ndarray]:
    """Copy `user`, `item` and, where the model has a memory, `key` and `memory`, for a peer."""
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {name: np.array(value) for name, value in flat.items()}


class LibraryTrainer:
    """Training steps, sampling included; the short last batch of an epoch is left out.

    Args:
      num_devices: how many to train on; None leaves it to the library.
      take_steps: takes the steps of a span, as the library does.
    """

    def __init__(
        self,
        config: Config,
        interactions: Interactions,
        num_devices: int | None = None,
        take_steps: Callable[..., TrainState] = advance,
    ) -> None:
        self._take_steps = take_steps
        model = build.build_model(config)
        params = initial_params(model, interactions)
        table_bytes = params["user"].nbytes + params["item"].nbytes
        num_users, num_items = interactions.num_users, interactions.num_items
        self._placement = Placement.replicated(
            num_devices or devices.count_for(model, table_bytes), num_users, num_items
        )
        dataset = as_dataset(interactions)
        self._positives = training_positives(self._placement, dataset, config)
        self._batch_size = config.training.batch_size
        self.steps_per_epoch = len(self._positives) // self._batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"fewer {config.training.batch_of} than {self._batch_size}, a batch")
        objective = make_objective(config, model, num_items, None)
        recipe = make_recipe(config, objective, dataset, self.steps_per_epoch)
        placed = self._placement.params(params)
        like = state_shapes(placed, recipe.optimizer, self._placement)
        self._state = new_state(placed, recipe.optimizer, like)
        self._recipe = jax.tree.map(self._placement.put, recipe)
        self._key = jax.random.key(_KEY)
        self._epoch, self._next = -1, self.steps_per_epoch

    def run(self, steps: int) -> None:
        """Take steps, and wait for the last."""
        while steps:
            if self._next == self.steps_per_epoch:
                self._start_epoch()
            stop = min(self._next + steps, self.steps_per_epoch)
            span = self._next, stop
            self._state = self._take_steps(
                self._state, self._rows, span, self._recipe, self._placement
            )
            steps -= stop - self._next
            self._next = stop
        jax.block_until_ready(self._state)

    def start_epoch(self) -> None:
        """Shuffle the next epoch, as `run` does when it needs one, and wait for it."""
        self._start_epoch()
        jax.block_until_ready(self._rows.order)

    def _start_epoch(self) -> None:
        self._epoch, self._next = self._epoch + 1, 0
        key = jax.random.fold_in(self._key, self._epoch)
        self._rows = shuffled_rows(self._positives, self._batch_size, key)

    def drawing_and_source(self) -> tuple[Drawing, Source]:
        """Return how batches are drawn, and from what."""
        return self._recipe.drawing, self._positives.source

    def params(self) -> dict[str, np.ndarray]:
        """Copy the present parameters; see `on_host`."""
        return on_host(self._state.params)

    def users_and_loss(self) -> tuple[np.ndarray, float]:
        """Draw a batch as in training; returns its users, and the present sum of its loss."""
        batch, loss = self._batch_and_loss()
        return np.array(batch.users), loss

    def triplets_and_loss(self) -> tuple[Triplets, float]:
        """Draw a batch as in training; returns it, and the present sum of its loss."""
        batch, loss = self._batch_and_loss()
        assert isinstance(batch, TripletBatch)
        history = batch.history if batch.history.items.size else (None, None)
        arrays = (batch.users, batch.row_ids().items, *history)
        return Triplets(*(None if x is None else np.array(x) for x in arrays)), loss

    def _batch_and_loss(self) -> tuple[Any, float]:
        rows = jnp.arange(self._batch_size, dtype=jnp.int32)
        batch = draw_batch(self._recipe.drawing, self._positives.source, rows, self._key)
        loss, _ = loss_of_batch(self._recipe.objective, self._state.params, batch)
        return batch, float(loss)


class LibraryRanker:
    """Top-k of the full catalogue, without what a user has interacted with."""

    def __init__(self, shape: Shape, interactions: Interactions, k: int) -> None:
        model = build.build_model(config_of(shape))
        self._params = initial_params(model, interactions)
        placement = Placement.replicated(1, interactions.num_users, interactions.num_items)
        length = shape.history_length if shape.has_history else 0
        self._draw = HistoryDraw(UniformChoice(), jax.random.key(_KEY), length)
        self._ranker = Ranker(model, placement.params(self._params), placement, self._draw)
        self._interactions = interactions
        self._k = k

    def top_k(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return item ids and scores, both `[users, k]`, best first."""
        interactions = self._interactions
        return self._ranker.top_k(users, self._k, history=interactions, seen=interactions)

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the items `[users, P]` and mask `[users, P]` that `top_k` draws for users."""
        if not self._draw.length:
            return None
        rows = jnp.asarray(users, jnp.int32)
        drawn = user_histories(self._draw, DeviceInteractions.of(self._interactions), rows)
        return np.array(drawn.items), np.array(drawn.mask)

    def params(self) -> dict[str, Any]:
        """Copy the parameters; see `on_host`."""
        return on_host(self._params)

"""All that the benchmarks ask of hlr_jax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from harness.shapes import Shape
from hlr_jax import models
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data import Dataset, Interactions
from hlr_jax.evaluation import ranking
from hlr_jax.models import Relation
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import recommender
from hlr_jax.sampling import sources
from hlr_jax.training import objective, optimizers
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params

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
      history, mask: `[B, P]`, or None where the model reads none.
    """

    users: np.ndarray
    items: np.ndarray
    history: np.ndarray | None
    mask: np.ndarray | None


def config_of(shape: Shape, rows: str = "all") -> Config:
    """A run with the published objective.

    Args:
      rows: which rows Adam updates, as in `config.optimizer.rows`.
    """
    options = {"slots": shape.slots} if shape.has_memory else {}
    return Config(
        model=ModelConfig(name=shape.model, dim=shape.dim, options=options),
        sampling=SamplingConfig(negatives=shape.negatives, history_length=shape.history_length),
        loss=LossConfig(margin=MARGIN),
        optimizer=OptimizerConfig(name="adam", learning_rate=LEARNING_RATE, rows=rows),
        training=TrainingConfig(batch_size=shape.batch_size),
    )


def _build(config: Config) -> Relation:
    return models.build(config.model.name, config.model.dim, config.model.options)


def initial_params(model: Relation, interactions: Interactions) -> Params:
    """Tables `user [U, d]`, `item [I, d]`, and the relation's own parameters."""
    sizes = interactions.num_users, interactions.num_items
    return training.init_params(jax.random.key(_KEY), model, *sizes)


def on_host(params: Params) -> dict[str, np.ndarray]:
    """`user`, `item` and, where the model has a memory, `key` and `memory`, for a peer."""
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {name: np.array(value) for name, value in flat.items()}


class OurTrainer:
    """Training steps, sampling included; the short last batch of an epoch is left out.

    Args:
      parts: on how many devices; None leaves it to the library.
    """

    def __init__(
        self, config: Config, interactions: Interactions, parts: int | None = None
    ) -> None:
        self._model, self._config = _build(config), config
        params = initial_params(self._model, interactions)
        table_bytes = params["user"].nbytes + params["item"].nbytes
        num_users, num_items = interactions.num_users, interactions.num_items
        self._placement = Placement.replicated(
            parts or devices.count_for(self._model, table_bytes), num_users, num_items
        )
        none = Interactions.from_pairs(np.zeros(0), np.zeros(0), num_users, num_items)
        ids = np.arange(num_users), np.arange(num_items)
        dataset = Dataset("benchmark", interactions, none, none, *ids)
        self._positives = recommender.training_positives(self._placement, dataset, config)
        self._batch_size = config.training.batch_size
        self.steps_per_epoch = len(self._positives) // self._batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"fewer {config.training.batch_of} than {self._batch_size}, a batch")
        self._optimizer = optimizers.build(config.optimizer, config.training, self.steps_per_epoch)
        self._source = self._positives.source
        self._state = self._placement.state(self._placement.params(params), self._optimizer)
        self._key = jax.random.key(_KEY)
        self._epoch, self._next = -1, self.steps_per_epoch

    def run(self, steps: int) -> None:
        """Take steps, and wait for the last."""
        while steps:
            if self._next == self.steps_per_epoch:
                self._start_epoch()
            stop = min(self._next + steps, self.steps_per_epoch)
            self._state = self._placement.advance(
                self._state,
                self._source,
                self._order,
                self._draws,
                self._next,
                stop,
                self._model,
                self._optimizer,
                self._config,
            )
            steps -= stop - self._next
            self._next = stop
        jax.block_until_ready(self._state)

    def _start_epoch(self) -> None:
        self._epoch, self._next = self._epoch + 1, 0
        order_key, self._draws = jax.random.split(jax.random.fold_in(self._key, self._epoch))
        self._order = self._placement.order(order_key, self._positives, self._batch_size)

    def params(self) -> dict[str, np.ndarray]:
        """A copy of the present parameters; see `on_host`."""
        return on_host(self._state.params)

    def batch_and_loss(self) -> tuple[Triplets, float]:
        """A batch as it is drawn in training, and the present sum of the loss over it."""
        rows = jnp.arange(self._batch_size, dtype=jnp.int32)
        batch = training.draw_batch(self._key, self._source, rows, 0, self._model, self._config)
        loss, _ = objective.loss_of_batch(
            self._model, self._config.loss, self._source.num_items, self._state.params, batch
        )
        history = batch.history or (None, None)
        arrays = (None if x is None else np.array(x) for x in (*batch[:2], *history))
        return Triplets(*arrays), float(loss)


class OurRanker:
    """Full-catalogue top-k without what a user has interacted with."""

    def __init__(self, shape: Shape, interactions: Interactions, k: int) -> None:
        self._model = _build(config_of(shape))
        self._params = initial_params(self._model, interactions)
        self._interactions = interactions
        self._length = shape.history_length if shape.has_history else 0
        self._k = k
        self._key = jax.random.key(_KEY)

    def top_k(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Item ids and scores, both `[users, k]`, best first."""
        return ranking.top_k(
            self._model,
            self._params,
            history=self._interactions,
            seen=self._interactions,
            users=users,
            k=self._k,
            length=self._length,
            key=self._key,
        )

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The items `[users, P]` and mask `[users, P]` that `top_k` draws for these users."""
        if not self._length:
            return None
        rows = sources.Rows.of(self._interactions)
        drawn = ranking.user_histories(
            self._key, rows, jnp.asarray(users, jnp.int32), self._length, None
        )
        return np.array(drawn.items), np.array(drawn.mask)

    def params(self) -> dict[str, Any]:
        """A copy of the parameters; see `on_host`."""
        return on_host(self._params)

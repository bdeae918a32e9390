"""Draw the items of a user's history that a relation sees."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from hlr_jax.sampling.random import uniform_subset
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import HistoryIds


class UniformChoice(struct.PyTreeNode):
    """Chooses every subset of a history with the same probability."""

    def subset(
        self,
        key: Key[Array, ""],
        history: DeviceInteractions,
        user: Int[Array, ""],
        position: Int[Array, ""],
        length: int,
    ) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
        """Places in the user's row of the history, and which of them count."""
        count = history.offsets[user + 1] - history.offsets[user]
        others = count - (position >= 0).astype(jnp.int32)
        chosen, mask = uniform_subset(key, others, length)
        # Step over the target.
        return chosen + ((position >= 0) & (chosen >= position)).astype(jnp.int32), mask


class WeightedChoice(struct.PyTreeNode):
    """Chooses item `i` with probability proportional to `exp(log_weights[i])` among those left.

    Attributes:
      log_weights: `[I]` float32.
    """

    log_weights: Float[Array, "i"]

    def subset(
        self,
        key: Key[Array, ""],
        history: DeviceInteractions,
        user: Int[Array, ""],
        position: Int[Array, ""],
        length: int,
    ) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
        """Take the largest `log weight + Gumbel noise` (Vieira 2014).

        Looks at as many places as the longest history has.
        """
        start = history.offsets[user]
        place = jnp.arange(max(history.longest, length))
        valid = (place < history.offsets[user + 1] - start) & (place != position)
        noise = jax.random.gumbel(key, place.shape)
        weights = self.log_weights[history.items[jnp.where(valid, start + place, 0)]]
        top, chosen = jax.lax.top_k(jnp.where(valid, weights + noise, -jnp.inf), length)
        return chosen, top > -jnp.inf


HistoryChoice = UniformChoice | WeightedChoice


def history_choice(kind: str, popularity: Int[np.ndarray, "i"]) -> HistoryChoice:
    """Build what `config.sampling.history` names: uniform, or unpopular (`1 / popularity`).

    Popularity counts training interactions; an item without any counts as 1.
    """
    if kind == "uniform":
        return UniformChoice()
    return WeightedChoice(-jnp.log(jnp.asarray(np.maximum(popularity, 1), jnp.float32)))


def sample_history(
    key: Key[Array, ""],
    history: DeviceInteractions,
    choice: HistoryChoice,
    user: Int[Array, ""],
    position: Int[Array, ""],
    length: int,
) -> HistoryIds:
    """Draw up to `length` of the user's items without replacement, never the one at `position`.

    Args:
      position: of the target in the user's row, or -1.

    Returns:
      `items [P]` and `mask [P]`.
    """
    chosen, mask = choice.subset(key, history, user, position, length)
    items = history.items[jnp.where(mask, history.offsets[user] + chosen, 0)]
    return HistoryIds(jnp.where(mask, items, 0), mask)


def user_histories(
    key: Key[Array, ""],
    history: DeviceInteractions,
    choice: HistoryChoice,
    users: Int[Array, "u"],
    length: int,
    numbers: Int[Array, "u"],
) -> HistoryIds:
    """Draw up to `length` history items of each user; which ones depends on key and user only.

    Args:
      users: rows of `history`.
      numbers: of the users among all, where `history` is of a part of them.
    """
    if not length:
        return HistoryIds.empty(len(users))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    no_target = jnp.full((), -1, jnp.int32)
    return jax.vmap(lambda k, u: sample_history(k, history, choice, u, no_target, length))(
        keys, users
    )

"""Draw the items of a user's history that a relation sees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, Key

from hlr_jax.errors import InputError
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
        """Choose places in the user's row of the history; the mask says which count."""
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

    log_weights: Any

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


class RecentChoice(struct.PyTreeNode):
    """Takes the last items before the target, the last first; nothing is random."""

    def subset(
        self,
        key: Key[Array, ""],
        history: DeviceInteractions,
        user: Int[Array, ""],
        position: Int[Array, ""],
        length: int,
    ) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
        """Go back in time from the target, or where there is none from the last item.

        Raises:
          InputError: it is not known which items came first.
        """
        if not history.oldest_first.size:
            raise InputError(
                "config.sampling.history='recent': it is not known which of these items came "
                "first; load the data with config.data.keep_times=True"
            )
        start = history.offsets[user]
        count = history.offsets[user + 1] - start
        target = history.ranks[start + jnp.maximum(position, 0)]
        ranks = jnp.where(position >= 0, target, count) - 1 - jnp.arange(length)
        mask = ranks >= 0
        return history.oldest_first[jnp.where(mask, start + ranks, 0)], mask


HistoryChoice = UniformChoice | WeightedChoice | RecentChoice


def history_choice(kind: str, popularity: Int[np.ndarray, "i"]) -> HistoryChoice:
    """Build what `config.sampling.history` names: uniform, unpopular (`1 / popularity`) or recent.

    Popularity counts training interactions; an item without any counts as 1.
    """
    if kind == "uniform":
        return UniformChoice()
    if kind == "recent":
        return RecentChoice()
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


class HistoryDraw(struct.PyTreeNode):
    """How histories are drawn for ranking, where no target is left out.

    Attributes:
      choice: how items of a longer history are chosen.
      key: decides which; the same for all users.
      length: `P`, the most items that a relation sees; 0 for one that reads none.
    """

    choice: HistoryChoice
    key: Key[Array, ""]
    length: int = struct.field(pytree_node=False)


def user_histories(
    draw: HistoryDraw, history: DeviceInteractions, users: Int[Array, "u"]
) -> HistoryIds:
    """Draw history items of each user; which ones depends on the key and what the user has only.

    So a user reads the same of a long history wherever its row is, alone and among others.

    Args:
      users: rows of `history`.
    """
    if not draw.length:
        return HistoryIds.empty(len(users))
    start, stop = history.offsets[users], history.offsets[users + 1]
    # Users who are alike in this draw the same places, which does no harm.
    parts = (history.items[start], history.items[jnp.maximum(stop - 1, start)], stop - start)
    first, last, count = (part.astype(jnp.uint32) for part in parts)
    numbers = first + jnp.uint32(2654435761) * (last + jnp.uint32(40503) * count)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(draw.key, numbers)
    no_target = jnp.full((), -1, jnp.int32)
    return jax.vmap(
        lambda k, u: sample_history(k, history, draw.choice, u, no_target, draw.length)
    )(keys, users)

"""Leave out of a ranking what the users of a batch have seen."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.data.interactions import MAX_SIZE, Interactions
from hlr_jax.evaluation.device_groups import group_axes
from hlr_jax.kernels.sizes import power_of_two
from hlr_jax.parallel.layout import Layout, spec

# Pairs of a batch are filled up to a power of two, at least to this: few programs are compiled.
_FEWEST_PAIRS = 1024

# The users of each group of devices.
Groups = list[Int[np.ndarray, "_"]]


class Shard(NamedTuple):
    """The items of one device.

    Attributes:
      first: the id of the first.
      rows: how many.
    """

    first: Array
    rows: int


class HiddenItems(struct.PyTreeNode):
    """Pairs of a user and an item that is not to be ranked, of each group of devices as many.

    Attributes:
      users: `[n]` int32; places in the group's part of the batch, one past it where it fills up.
      items: `[n]` int32; no pair comes twice.
      allowed: `[I]`; whether an item is ranked for anybody. Rows after them are hidden too.
    """

    users: Any
    items: Any
    allowed: Any

    @classmethod
    def of(
        cls,
        seen: Interactions,
        groups: Groups,
        size: int,
        length: int,
        allowed: Bool[np.ndarray, "i"],
    ) -> "HiddenItems":
        """List what users have seen.

        Args:
          size: users of a group once they are filled up.
          length: pairs of a group once they are filled up; see `pairs_length`.
          allowed: items that are ranked for users who have not seen them.
        """
        users = np.full((len(groups), length), size, np.int32)
        items = np.tile(np.arange(length, dtype=np.int32), (len(groups), 1))
        for number, group in enumerate(groups):
            firsts = seen.offsets[group]
            counts = seen.offsets[group + 1] - firsts
            total = int(counts.sum())
            shift = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
            users[number, :total] = np.repeat(np.arange(len(group)), counts)
            items[number, :total] = seen.items[shift + np.arange(total)]
        return cls(users.ravel(), items.ravel(), allowed)

    def specs(self, layout: Layout) -> "HiddenItems":
        """Give each group of devices its own pairs."""
        of_groups = spec(group_axes(layout))
        return HiddenItems(of_groups, of_groups, spec(()))

    def hide(
        self, scores: Float[Array, "u t"], place: Int[Array, ""], shard: Shard
    ) -> Float[Array, "u t"]:
        """Set scores of hidden items to -inf, of a tile that starts at a place of the shard."""
        columns = self.items - (shard.first + place)
        # What is before the tile goes far behind it, where nothing is set.
        columns = jnp.where(columns < 0, columns + MAX_SIZE, columns)
        scores = scores.at[self.users, columns].set(-jnp.inf, mode="drop", unique_indices=True)
        places = place + jnp.arange(scores.shape[1], dtype=jnp.int32)
        allowed = self.allowed.at[shard.first + places].get(mode="fill", fill_value=False)
        return jnp.where((allowed & (places < shard.rows))[None], scores, -jnp.inf)


def pairs_length(seen: Interactions, batches: list[Groups]) -> int:
    """Choose a number of pairs that holds those of each group of each batch."""
    first, stop = seen.offsets[:-1], seen.offsets[1:]
    of_groups = (users for groups in batches for users in groups)
    most = max((int((stop[users] - first[users]).sum()) for users in of_groups), default=0)
    return max(_FEWEST_PAIRS, power_of_two(most))

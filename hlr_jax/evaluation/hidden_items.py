"""Say which items are not to be ranked for users of a batch: as bits, or as pairs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from hlr_jax.data.interactions import MAX_SIZE, Interactions
from hlr_jax.evaluation.device_groups import group_axes
from hlr_jax.evaluation.user_batches import padded
from hlr_jax.kernels.sizes import MASK_BYTES, UNPACKED_BYTES, hides_by_bits, ranking_tile
from hlr_jax.parallel.layout import Layout, spec

# Pairs of a batch are filled up to a power of two, and to these: few programs are compiled.
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


class HiddenBits(struct.PyTreeNode):
    """A bit for each item of the tiles of each shard, lowest first.

    Attributes:
      bits: `[u, bytes]`; set where the user is not to get the item.
    """

    bits: Any

    def specs(self, layout: Layout) -> "HiddenBits":
        """Shard users by groups of devices, and bits by items."""
        return HiddenBits(PartitionSpec(group_axes(layout), layout.item or None))

    def hide(
        self, scores: Float[Array, "u t"], place: Int[Array, ""], shard: Shard
    ) -> Float[Array, "u t"]:
        """Set scores of hidden items to -inf, of a tile that starts at a place of the shard."""
        tile = scores.shape[1]
        bits = jax.lax.dynamic_slice_in_dim(self.bits, place // 8, tile // 8, axis=1)
        return jnp.where(_unpack(bits), -jnp.inf, scores)


class HiddenPairs(struct.PyTreeNode):
    """Pairs of a user and an item, of each group of devices as many.

    Attributes:
      users: `[n]` int32; places in the group's part of the batch, one past it where it fills up.
      items: `[n]` int32.
      num_items: `I`; rows after them are hidden too.
    """

    users: Any
    items: Any
    num_items: int = struct.field(pytree_node=False)

    def specs(self, layout: Layout) -> "HiddenPairs":
        """Give each group of devices its own pairs."""
        of_groups = spec(group_axes(layout))
        return HiddenPairs(of_groups, of_groups, self.num_items)

    def hide(
        self, scores: Float[Array, "u t"], place: Int[Array, ""], shard: Shard
    ) -> Float[Array, "u t"]:
        """Set scores of hidden items to -inf, of a tile that starts at a place of the shard."""
        columns = self.items - (shard.first + place)
        # What is before the tile goes far behind it, where nothing is set.
        columns = jnp.where(columns < 0, columns + MAX_SIZE, columns)
        scores = scores.at[self.users, columns].set(-jnp.inf, mode="drop", unique_indices=True)
        places = place + jnp.arange(scores.shape[1], dtype=jnp.int32)
        fills_up = (places >= shard.rows) | (shard.first + places >= self.num_items)
        return jnp.where(fills_up[None], -jnp.inf, scores)


Hidden = HiddenBits | HiddenPairs


def most_users(num_items: int) -> int:
    """Choose a bound of a batch's users: packed, a bit for each of their pairs with an item."""
    return 8 * MASK_BYTES // num_items if hides_by_bits() else MAX_SIZE


def hiding_of(
    seen: Interactions, batches: list[Groups], size: int, item_shards: tuple[int, int]
) -> Callable[[Groups], Hidden]:
    """Return a function that says what is hidden from a batch.

    Args:
      batches: the users of each group of devices, batch by batch.
      size: users of a group once they are filled up.
      item_shards: how many, and the rows of each.
    """
    if hides_by_bits():
        return functools.partial(hidden_bits, seen, size, item_shards)
    counts = seen.counts
    most = max((int(counts[users].sum()) for groups in batches for users in groups), default=0)
    length = max(_FEWEST_PAIRS, 1 << max(most - 1, 0).bit_length())
    return functools.partial(hidden_pairs, seen, size, length)


def hidden_bits(
    seen: Interactions, size: int, item_shards: tuple[int, int], of_groups: Groups
) -> HiddenBits:
    """Pack a bit for each item, set where the user has seen it.

    Every shard of items is filled up to full tiles by items that count as seen.
    """
    every = np.concatenate([padded(users, size) for users in of_groups])
    shards, shard_size = item_shards
    tile = ranking_tile(size, shard_size)
    places = -(-shard_size // tile) * tile
    items = np.arange(seen.num_items)
    column = items // shard_size * places + items % shard_size
    packed = np.empty((len(every), shards * places // 8), np.uint8)
    step = max(1, UNPACKED_BYTES // (shards * places))
    for start in range(0, len(every), step):
        some = every[start : start + step]
        row, seen_items = _pairs(seen, some)
        mask = np.ones((len(some), shards * places), bool)
        mask[:, column] = False
        mask[row, column[seen_items]] = True
        packed[start : start + step] = np.packbits(mask, axis=1, bitorder="little")
    return HiddenBits(packed)


def hidden_pairs(seen: Interactions, size: int, length: int, of_groups: Groups) -> HiddenPairs:
    """List what the users of each group have seen.

    Args:
      length: pairs of a group once they are filled up.
    """
    users = np.full((len(of_groups), length), size, np.int32)
    items = np.zeros((len(of_groups), length), np.int32)
    for number, group in enumerate(of_groups):
        row, seen_items = _pairs(seen, group)
        users[number, : len(row)] = row
        items[number, : len(row)] = seen_items
        # No pair comes twice.
        items[number, len(row) :] = np.arange(length - len(row))
    return HiddenPairs(users.ravel(), items.ravel(), seen.num_items)


def _pairs(
    seen: Interactions, users: Int[np.ndarray, "u"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """List the items of users one after another, beside the place of the user."""
    firsts = seen.offsets[users]
    counts = seen.offsets[users + 1] - firsts
    row = np.repeat(np.arange(len(users)), counts)
    shift = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return row, seen.items[shift + np.arange(len(row))]


def _unpack(bits: UInt8[Array, "u bytes"]) -> Bool[Array, "u bits"]:
    """Invert `np.packbits` with the lowest bit first."""
    masks = jnp.left_shift(jnp.uint8(1), jnp.arange(8, dtype=jnp.uint8))
    return ((bits[..., None] & masks[None, None]) != 0).reshape(len(bits), -1)

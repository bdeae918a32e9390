"""Draw items that a user has not seen, without rejection, and find which of some it has not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, Key

from hlr_jax.data.interactions import Interactions
from hlr_jax.kernels import loops, sizes
from hlr_jax.sampling.random import uniform_below
from hlr_jax.sampling.sources import DeviceInteractions, SamplingSource


class UniformItems(struct.PyTreeNode):
    """Items side by side, each 1 wide."""

    def total(self, num_items: int) -> Array:
        """The width of all items."""
        return jnp.asarray(num_items)

    def before(self, item: Int[Array, "*n"]) -> Int[Array, "*n"]:
        """The width of all items before each of these."""
        return item

    def seen_before(self, place: Int[Array, "*n"], start: Int[Array, "*#n"]) -> Int[Array, "*n"]:
        """The width of the seen items from entry `start` up to before entry `place`."""
        return place - start

    def item_at(self, place: Int[Array, "k"]) -> Int[Array, "k"]:
        """The item that covers a place."""
        return place


class ItemWeights(struct.PyTreeNode):
    """Items side by side, each as wide as its weight, a whole number: sums of them are exact.

    Attributes:
      widths_before: `[I]` int32; the weights of all items below each, added up.
      width: int32; of all items, below 2^31.
      seen_widths: `[N + 1]` uint32; the weights of the entries of `SamplingSource.seen` before
        each, modulo 2^32. Differences within a user are exact.
    """

    widths_before: Any
    width: Any
    seen_widths: Any

    def total(self, num_items: int) -> Array:
        """The width of all items."""
        return self.width

    def before(self, item: Int[Array, "*n"]) -> Int[Array, "*n"]:
        """The width of all items before each of these."""
        return self.widths_before[item]

    def seen_before(self, place: Int[Array, "*n"], start: Int[Array, "*#n"]) -> Int[Array, "*n"]:
        """The width of the seen items from entry `start` up to before entry `place`."""
        return (self.seen_widths[place] - self.seen_widths[start]).astype(jnp.int32)

    def item_at(self, place: Int[Array, "k"]) -> Int[Array, "k"]:
        """The item that covers a place."""
        return loops.count_up_to(self.widths_before, place) - 1


def item_weights(
    popularity: Int[np.ndarray, "i"], exponent: float, seen: Interactions
) -> ItemWeights:
    """Weigh items by `popularity^exponent`, rounded down to whole parts of 2^30, at least one.

    Popularity counts training interactions; an item without any counts as 1.
    """
    share = np.maximum(popularity, 1).astype(np.float64) ** exponent
    weights = np.maximum(np.floor(share * (2**30 / share.sum())), 1).astype(np.int64)
    upto = np.cumsum(weights)
    seen_upto = np.cumsum(weights[seen.items])
    return ItemWeights(
        jnp.asarray(upto - weights, jnp.int32),
        jnp.asarray(upto[-1], jnp.int32),
        jnp.asarray(np.append(0, seen_upto) % 2**32, jnp.uint32),
    )


def sample_negatives(
    key: Key[Array, ""], source: SamplingSource, user: Int[Array, ""], num: int
) -> Int[Array, "k"]:
    """Draw `num` independent items, each from exactly those that the user has not seen.

    No rejection. Think of the items side by side, each as wide as its weight (`source.prepared`).
    Draw a place in the joint width of the unseen ones. The unseen width before the `c`-th seen item
    is the width of all items before it less that of `c` seen ones, which does not decrease with
    `c`: a binary search counts the seen items ahead of the place, and their width is what the
    place has to move by.
    """
    weights: UniformItems | ItemWeights = source.prepared
    seen = source.seen
    start, stop = seen.offsets[user], seen.offsets[user + 1]
    free = weights.total(source.num_items) - weights.seen_before(stop, start)
    place = uniform_below(key, free, (num,))

    def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        unseen = weights.before(seen.items[middle]) - weights.seen_before(middle, start)
        ahead = (low < high) & (unseen <= place)
        return jnp.where(ahead, middle + 1, low), jnp.where(ahead, high, middle)

    bounds = (jnp.full((num,), start), jnp.full((num,), stop))
    low, _ = loops.repeat(seen.longest.bit_length(), halve, bounds)
    return weights.item_at(place + weights.seen_before(low, start))


def sample_items(key: Key[Array, ""], source: SamplingSource, num: int) -> Int[Array, "n"]:
    """Draw `num` independent items from the whole catalogue."""
    weights: UniformItems | ItemWeights = source.prepared
    return weights.item_at(uniform_below(key, weights.total(source.num_items), (num,)))


def first_places(shared: Int[Array, "n"], num_items: int) -> Int[Array, "i"]:
    """Find where each item of the catalogue first stands in a list; its length where it does not.

    An item past the end of the catalogue is nowhere.
    """
    numbers = jnp.arange(len(shared), dtype=jnp.int32)
    return jnp.full(num_items, len(shared), jnp.int32).at[shared].min(numbers, mode="drop")


def is_first(shared: Int[Array, "n"], places: Int[Array, "i"]) -> Bool[Array, "n"]:
    """Tell which items of a list stand at their `first_places`."""
    numbers = jnp.arange(len(shared), dtype=jnp.int32)
    return places.at[shared].get(mode="fill", fill_value=-1) == numbers


def has_of_shared(
    places: Int[Array, "i"],
    num_shared: int,
    interactions: DeviceInteractions,
    users: Int[Array, "b"],
) -> Bool[Array, "b n"]:
    """Tell which items of a list each user has, by their `first_places`; not of later equal ones.

    On a CPU time grows with the items of the user who has most, some at a time; on accelerators
    with the most that any user has, all at once.
    """
    start, counts = interactions.offsets[users], interactions.counts(users)
    rows = jnp.arange(len(users))[:, None]
    width = 128 if sizes.is_cpu() else interactions.longest

    def note(block: Array | int, has: Array) -> Array:
        within = (block * width + jnp.arange(width))[None]
        valid = within < counts[:, None]
        items = interactions.items[jnp.where(valid, start[:, None] + within, 0)]
        found = jnp.where(valid, places[items], num_shared)
        return has.at[rows, found].set(True, mode="drop")

    none = jnp.zeros((len(users), num_shared), bool)
    if sizes.is_cpu():
        return jax.lax.fori_loop(0, -(-jnp.max(counts) // width), note, none)
    return note(0, none)


def unseen_of_shared(
    shared: Int[Array, "n"], seen: DeviceInteractions, users: Int[Array, "b"], num_items: int
) -> Bool[Array, "b n"]:
    """Tell which of these items each user has not seen; of equal ones only the first counts.

    An item past the end of the catalogue never counts.
    """
    places = first_places(shared, num_items)
    has_seen = has_of_shared(places, len(shared), seen, users)
    return is_first(shared, places)[None] & ~has_seen

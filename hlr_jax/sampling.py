"""Everything random in training: epoch order, and on the device negatives and histories.

All draws are functions of a key, and the keys of (seed, epoch, interaction), so a run
that resumes, or spreads a batch over devices, draws what it would have drawn anyway.
The samplers handle one row; `draw_batch` maps them over a batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models.base import Histories


class Rows(struct.PyTreeNode):
    """Interactions on the device; or of several devices, with a leading axis of these.

    Attributes:
      offsets: `[U + 1]` int32; user `u` owns `items[offsets[u]:offsets[u + 1]]`, increasing.
      items: `[N]` int32.
      longest: the most items any user has; fixed at compile time, it bounds searches.
    """

    offsets: Any
    items: Any
    longest: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, interactions: Interactions) -> "Rows":
        return cls(
            jnp.asarray(interactions.offsets, jnp.int32),
            jnp.asarray(interactions.items, jnp.int32),
            int(interactions.counts.max(initial=0)),
        )


class Source(struct.PyTreeNode):
    """What triplets are drawn from; by several devices, with a leading axis of these.

    Attributes:
      users, items: `[N]` int32; the positives.
      position: `[N]` int32; where the positive stands in its user's row of `history`; -1 where it
        does not.
      history: what a relation may see of a user.
      seen: what is never drawn as a negative.
      log_weights: `[I]` float32; log of the unnormalised probability of being chosen for a
        history. None chooses uniformly.
      first: uint32; the number of the first positive, where these are a part of all: by their
        numbers positives draw the same wherever they are.
      num_items: `I`.
    """

    users: Any
    items: Any
    position: Any
    history: Rows
    seen: Rows
    log_weights: Any
    first: Any
    num_items: int = struct.field(pytree_node=False)


class Batch(NamedTuple):
    """Triplets of one step.

    Attributes:
      users: `[B]`.
      items: `[B, 1 + K]`; the positive, then K negatives.
      history: None where the model reads none.
      weight: `[B]`; 1 for a triplet, 0 for padding.
    """

    users: Int[Array, "b"]
    items: Int[Array, "b k_plus_1"]
    history: Histories | None
    weight: Float[Array, "b"]


def history_log_weights(kind: str, popularity: Int[np.ndarray, "i"]) -> Float[Array, "i"] | None:
    """`config.sampling.history` as log weights: None for uniform, `-log popularity` for unpopular.

    Popularity counts training interactions; an item without any counts as 1.
    """
    if kind == "uniform":
        return None
    return -jnp.log(jnp.asarray(np.maximum(popularity, 1), jnp.float32))


def training_source(
    train: Interactions, log_weights: Float[Array, "i"] | None = None, first: int = 0
) -> Source:
    """The training interactions: histories and negatives both go by them."""
    rows = Rows.of(train)
    position = np.arange(len(train)) - np.repeat(train.offsets[:-1], train.counts)
    return Source(
        jnp.asarray(train.users),
        rows.items,
        jnp.asarray(position, jnp.int32),
        rows,
        rows,
        log_weights,
        _number(first),
        train.num_items,
    )


def validation_source(
    train: Interactions,
    valid: Interactions,
    log_weights: Float[Array, "i"] | None = None,
    first: int = 0,
) -> Source:
    """The validation interactions, with training histories; negatives are in neither.

    Raises:
      InputError: a validation pair is also a training pair.
    """
    seen = train.union(valid)
    if len(seen) < len(train) + len(valid):
        raise InputError(
            f"{len(train) + len(valid) - len(seen)} pairs are both in the training and the "
            "validation split; a pair belongs to one split"
        )
    return Source(
        jnp.asarray(valid.users),
        jnp.asarray(valid.items),
        jnp.full(len(valid), -1, jnp.int32),
        Rows.of(train),
        Rows.of(seen),
        log_weights,
        _number(first),
        train.num_items,
    )


def _number(first: int) -> UInt32[Array, ""]:
    # Beyond 2^32 numbers come again; two interactions of a step hardly ever share one then.
    return jnp.asarray(first % 2**32, jnp.uint32)


def num_steps(num_rows: int, batch_size: int) -> int:
    """Steps of an epoch; the last batch may be short."""
    return -(-num_rows // batch_size)


def epoch_order(key: Key[Array, ""], num_rows: int, batch_size: int) -> Int[np.ndarray, "steps b"]:
    """Every row once, in random order, cut into batches; -1 pads the last.

    Drawn on the host, where a long list is shuffled many times faster than a device sorts it.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    return in_batches(np.random.default_rng(seed).permutation(num_rows), batch_size)


def in_batches(rows: Int[np.ndarray, "n"], batch_size: int) -> Int[np.ndarray, "steps b"]:
    """Rows cut into batches in their order; -1 pads the last."""
    steps = num_steps(len(rows), batch_size)
    padding = steps * batch_size - len(rows)
    padded = np.pad(rows.astype(np.int32), (0, padding), constant_values=-1)
    return padded.reshape(steps, batch_size)


def orders_by_part(
    key: Key[Array, ""],
    bounds: Int[np.ndarray, "parts_plus_1"],
    batch_size: int,
    groups: Sequence[slice],
    wanted: Sequence[int] | None = None,
) -> Int[np.ndarray, "groups steps b"]:
    """`epoch_order` of rows that are cut into parts, for groups of consecutive parts.

    Every part is shuffled by itself and spread evenly over the steps, so that a step's batch is
    the same however the parts are grouped, and nobody needs to know the rows of all parts.

    Args:
      bounds: part `j` has the rows `bounds[j] .. bounds[j + 1] - 1`.
      groups: the parts of each group.
      wanted: the groups to return; None returns all.

    Returns:
      Rows counted from the first row of their group; -1 fills batches up to one size, the same
      for all groups.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    sizes = np.diff(bounds)
    steps = num_steps(int(bounds[-1] - bounds[0]), batch_size)
    # Parts round at different steps, or batches of many small parts would be of unequal sizes.
    phase = (steps * np.arange(len(sizes)) // len(sizes))[:, None]
    starts = (sizes[:, None] * np.arange(steps + 1) + phase) // steps
    counts = [np.diff(starts[group]).sum(axis=0) for group in groups]
    most = max(int(count.max(initial=0)) for count in counts)
    wanted = range(len(groups)) if wanted is None else wanted
    orders = np.full((len(wanted), steps, most), -1, np.int32)
    for order, group in zip(orders, (groups[number] for number in wanted), strict=True):
        filled = np.zeros(steps, np.int64)
        for part in range(len(sizes))[group]:
            shuffled = np.random.default_rng([*seed, part]).permutation(sizes[part])
            step = np.repeat(np.arange(steps), np.diff(starts[part]))
            within = np.arange(sizes[part]) - starts[part][step]
            order[step, filled[step] + within] = bounds[part] - bounds[group.start] + shuffled
            filled += np.diff(starts[part])
    return orders


def uniform_below(
    key: Key[Array, ""], bound: Int[Array, "*#n"], shape: tuple[int, ...]
) -> Int[Array, "*n"]:
    """Uniform integers from 0 to `bound - 1`: 64 random bits times `bound / 2^64`, rounded down.

    No number is more likely than another by more than `bound / 2^64`. Needs a third of the hashing
    of `jax.random.randint`, and no division (Lemire 2019).
    """
    high, low = jnp.moveaxis(jax.random.bits(key, (*shape, 2), jnp.uint32), -1, 0)
    factor = bound.astype(jnp.uint32)
    below = high * factor  # the lower half of that product
    carried = below + _upper_half(low, factor) < below
    return (_upper_half(high, factor) + carried.astype(jnp.uint32)).astype(jnp.int32)


def _upper_half(x: UInt32[Array, "*#n"], y: UInt32[Array, "*#n"]) -> UInt32[Array, "*n"]:
    """The upper 32 of the 64 bits of `x * y`."""
    x_low, x_high, y_low, y_high = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
    middle = x_high * y_low + (x_low * y_low >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    return x_high * y_high + (middle >> 16) + (other >> 16)


def sample_negatives(
    key: Key[Array, ""], seen: Rows, user: Int[Array, ""], num: int, num_items: int
) -> Int[Array, "k"]:
    """`num` independent draws, each exactly uniform over the items the user has not seen.

    No rejection. Draw the rank `r` of the negative among the unseen items. Before the
    `c`-th seen item (from 0) there are `seen[c] - c` unseen ones, a non-decreasing
    sequence, so a binary search counts the seen items ahead of the negative, and the
    negative is `r` plus that count.
    """
    start, stop = seen.offsets[user], seen.offsets[user + 1]
    rank = uniform_below(key, num_items - (stop - start), (num,))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        ahead = (low < high) & (seen.items[middle] - (middle - start) <= rank)
        return jnp.where(ahead, middle + 1, low), jnp.where(ahead, high, middle)

    bounds = (jnp.full((num,), start), jnp.full((num,), stop))
    low, _ = jax.lax.fori_loop(0, seen.longest.bit_length(), halve, bounds)
    return rank + (low - start)


def sample_history(
    key: Key[Array, ""],
    history: Rows,
    user: Int[Array, ""],
    position: Int[Array, ""],
    length: int,
    log_weights: Float[Array, "i"] | None = None,
) -> Histories:
    """Up to `length` of the user's items without replacement, never the one at `position`.

    Args:
      position: of the target in the user's row, or -1.
      log_weights: None chooses uniformly; else item `i` is drawn with probability
        proportional to `exp(log_weights[i])` among those not drawn yet.

    Returns:
      `items [P]` and `mask [P]`.
    """
    start = history.offsets[user]
    count = history.offsets[user + 1] - start
    if log_weights is None:
        others = count - (position >= 0).astype(jnp.int32)
        chosen, mask = _uniform_subset(key, others, length)
        # Step over the target.
        chosen = chosen + ((position >= 0) & (chosen >= position)).astype(jnp.int32)
    else:
        chosen, mask = _weighted_subset(key, history, start, count, position, length, log_weights)
    items = history.items[jnp.where(mask, start + chosen, 0)]
    return Histories(jnp.where(mask, items, 0), mask)


def _uniform_subset(
    key: Key[Array, ""], count: Int[Array, ""], length: int
) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
    """A uniform subset of `min(count, length)` of `0..count - 1`, by Floyd's algorithm.

    For each `j` of the last `length` numbers: draw `t` from `0..j`, take `t`, or `j` if `t` is
    taken already (Bentley and Floyd 1987). Cost does not depend on `count`.
    """
    size = jnp.minimum(count, length)
    step = jnp.arange(length)
    last = count - size + step
    draws = uniform_below(key, jnp.maximum(last, 0) + 1, (length,))

    def take(i: Array, chosen: Array) -> Array:
        taken = jnp.any(chosen == draws[i])
        return chosen.at[i].set(jnp.where(taken, last[i], draws[i]))

    chosen = jax.lax.fori_loop(0, length, take, jnp.full((length,), -1))
    return chosen, step < size


def _weighted_subset(
    key: Key[Array, ""],
    history: Rows,
    start: Int[Array, ""],
    count: Int[Array, ""],
    position: Int[Array, ""],
    length: int,
    log_weights: Float[Array, "i"],
) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
    """Weighted draws without replacement: the largest `log weight + Gumbel noise` (Vieira 2014).

    Looks at as many places as the longest history has.
    """
    place = jnp.arange(max(history.longest, length))
    valid = (place < count) & (place != position)
    noise = jax.random.gumbel(key, place.shape)
    score = log_weights[history.items[jnp.where(valid, start + place, 0)]] + noise
    top, chosen = jax.lax.top_k(jnp.where(valid, score, -jnp.inf), length)
    return chosen, top > -jnp.inf


def draw_batch(
    key: Key[Array, ""],
    source: Source,
    rows: Int[Array, "b"],
    negatives: int,
    history_length: int,
) -> Batch:
    """Complete positives to triplets with histories.

    Args:
      key: of the epoch.
      rows: `[B]` rows of `source`; -1 is padding.
      history_length: `P`; 0 leaves histories out.
    """
    valid = rows >= 0
    rows = jnp.maximum(rows, 0)
    users, positives, position = source.users[rows], source.items[rows], source.position[rows]
    numbers = source.first + rows.astype(jnp.uint32)

    def keys(purpose: int) -> Key[Array, "b"]:
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, purpose), numbers)

    drawn = jax.vmap(lambda k, u: sample_negatives(k, source.seen, u, negatives, source.num_items))(
        keys(0), users
    )
    history = None
    if history_length:
        history = jax.vmap(
            lambda k, u, p: sample_history(
                k, source.history, u, p, history_length, source.log_weights
            )
        )(keys(1), users, position)
    items = jnp.concatenate([positives[:, None], drawn], axis=1)
    return Batch(users, items, history, valid.astype(jnp.float32))

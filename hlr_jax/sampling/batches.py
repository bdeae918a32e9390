"""What is drawn for interactions on the device: negatives and histories.

All draws are functions of a key, and the keys of (seed, epoch, interaction), so a run
that resumes, or spreads a batch over devices, draws what it would have drawn anyway.
The samplers handle one row; `draw_batch` maps them over a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from hlr_jax.models.relation import Histories
from hlr_jax.sampling.sources import Rows, Source, Weights


class Batch(NamedTuple):
    """Positives of one step with their negatives.

    Attributes:
      users: `[B]`.
      items: `[B, 1 + K]`; the positive, then K negatives, none where they come from a pool;
        `[B, 0]` where the positives do so too.
      history: None where the model reads none.
      weight: `[B]`; how much each row counts: 1 unless users are balanced, 0 for padding.
      pool: `[N]`; items that serve all rows as negatives, or None.
      unseen: `[B, N]`; which of the pool each user has not seen.
      positives: `[B, N]`; which of the pool are positives of each user, where a row of the batch
        is a user with all of them; else None.
    """

    users: Int[Array, "b"]
    items: Int[Array, "b k_plus_1"]
    history: Histories | None
    weight: Float[Array, "b"]
    pool: Int[Array, "n"] | None = None
    unseen: Bool[Array, "b n"] | None = None
    positives: Bool[Array, "b n"] | None = None


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
    key: Key[Array, ""],
    seen: Rows,
    user: Int[Array, ""],
    num: int,
    num_items: int,
    weights: Weights | None = None,
) -> Int[Array, "k"]:
    """`num` independent draws, each from exactly the items the user has not seen.

    No rejection. Think of the items side by side, each as wide as its weight (1 without
    weights). Draw a place in the joint width of the unseen ones. The unseen width before the
    `c`-th seen item is the width of all items before it less that of `c` seen ones, which does
    not decrease with `c`: a binary search counts the seen items ahead of the place, and their
    width is what the place has to move by.
    """
    start, stop = seen.offsets[user], seen.offsets[user + 1]

    def seen_width(place: Array) -> Array:
        if weights is None:
            return place - start
        return (weights.seen_before[place] - weights.seen_before[start]).astype(jnp.int32)

    def width_before(item: Array) -> Array:
        return item if weights is None else weights.before[item]

    total = num_items if weights is None else weights.total
    place = uniform_below(key, total - seen_width(stop), (num,))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        unseen = width_before(seen.items[middle]) - seen_width(middle)
        ahead = (low < high) & (unseen <= place)
        return jnp.where(ahead, middle + 1, low), jnp.where(ahead, high, middle)

    bounds = (jnp.full((num,), start), jnp.full((num,), stop))
    low, _ = jax.lax.fori_loop(0, seen.longest.bit_length(), halve, bounds)
    return _item_at(place + seen_width(low), weights)


def _item_at(place: Int[Array, "k"], weights: Weights | None) -> Int[Array, "k"]:
    """The item that covers a place in the joint width of all items."""
    if weights is None:
        return place
    found = jnp.searchsorted(weights.before, place, side="right") - 1
    return found.astype(jnp.int32)


def draw_pool(
    key: Key[Array, ""], step: Int[Array, ""], source: Source, num: int
) -> Int[Array, "n"]:
    """`num` independent draws from the whole catalogue, the same wherever a step is taken.

    Args:
      key: of the epoch.
    """
    total = jnp.asarray(source.num_items if source.weights is None else source.weights.total)
    key = jax.random.fold_in(jax.random.fold_in(key, 2), step)
    return _item_at(uniform_below(key, total, (num,)), source.weights)


def unseen_of_pool(
    pool: Int[Array, "n"], seen: Rows, users: Int[Array, "b"], num_items: int
) -> Bool[Array, "b n"]:
    """Which of a pool's items each user has not seen; of equal ones only the first counts.

    Time goes by the users' items; the scratch is four bytes for each item of the catalogue.
    """
    numbers = jnp.arange(len(pool), dtype=jnp.int32)
    place_of = jnp.full(num_items, len(pool), jnp.int32).at[pool].min(numbers)
    start = seen.offsets[users]
    counts = seen.offsets[users + 1] - start
    rows = jnp.arange(len(users))[:, None]
    width = 128

    def hide(block: Array, unseen: Array) -> Array:
        within = (block * width + jnp.arange(width))[None]
        valid = within < counts[:, None]
        items = seen.items[jnp.where(valid, start[:, None] + within, 0)]
        places = jnp.where(valid, place_of[items], len(pool))
        return unseen.at[rows, places].set(False, mode="drop")

    first = jnp.broadcast_to(place_of[pool] == numbers, (len(users), len(pool)))
    return jax.lax.fori_loop(0, -(-jnp.max(counts) // width), hide, first)


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
    pool: Int[Array, "n"] | None = None,
    balance: float = 0.0,
) -> Batch:
    """Complete positives with negatives and histories.

    Args:
      key: of the epoch.
      rows: `[B]` rows of `source`; -1 is padding.
      negatives: `K` for each positive; not drawn if there is a pool.
      history_length: `P`; 0 leaves histories out.
      pool: negatives that all rows share.
      balance: a row counts `(training interactions of its user)^-balance`.
    """
    valid = rows >= 0
    rows = jnp.maximum(rows, 0)
    users, positives, position = source.users[rows], source.items[rows], source.position[rows]
    numbers = source.first + rows.astype(jnp.uint32)

    def keys(purpose: int) -> Key[Array, "b"]:
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, purpose), numbers)

    items, unseen = positives[:, None], None
    if pool is None:
        drawn = jax.vmap(
            lambda k, u: sample_negatives(
                k, source.seen, u, negatives, source.num_items, source.weights
            )
        )(keys(0), users)
        items = jnp.concatenate([items, drawn], axis=1)
    else:
        unseen = unseen_of_pool(pool, source.seen, users, source.num_items)
    history = None
    if history_length:
        history = jax.vmap(
            lambda k, u, p: sample_history(
                k, source.history, u, p, history_length, source.log_weights
            )
        )(keys(1), users, position)
    return Batch(users, items, history, _weight(source, users, valid, balance), pool, unseen)


def batch_of_users(
    source: Source, rows: Int[Array, "b"], pool: Int[Array, "n"], balance: float = 0.0
) -> Batch:
    """All positives of some users, with the rest of a pool as their negatives.

    Args:
      rows: `[B]` rows of a source of users; -1 is padding.
      pool: different items, among them all positives.
      balance: a positive counts `(training interactions of its user)^-balance`.
    """
    valid = rows >= 0
    users = source.users[jnp.maximum(rows, 0)]
    unseen = others = unseen_of_pool(pool, source.seen, users, source.num_items)
    if source.positives is not None:
        others = unseen_of_pool(pool, source.positives, users, source.num_items)
    weight = _weight(source, users, valid, balance)
    none = jnp.zeros((len(users), 0), jnp.int32)
    return Batch(users, none, None, weight, pool, unseen, ~others)


def _weight(
    source: Source, users: Int[Array, "b"], valid: Bool[Array, "b"], balance: float
) -> Float[Array, "b"]:
    """`(training interactions of the user)^-balance`; 0 for padding."""
    weight = valid.astype(jnp.float32)
    if balance:
        counts = source.history.offsets[users + 1] - source.history.offsets[users]
        weight *= jnp.maximum(counts, 1).astype(jnp.float32) ** -balance
    return weight

"""What one program of a GPU computes of `relation_change`, and of its gradient.

A program takes one user with a tile of items and one reference at a time: its slot weights
`[T, M]` are made from the product of the tile with `reference * key`, are used, and are forgotten.
The softmax over references is a running one (Dao et al., FlashAttention, 2022): sums are kept
relative to the largest logit so far. Every width is a power of two, as Triton wants it; slots
from `slots` on are padding, with the logit `-inf`.

The gradient makes the slot weights again, twice: once for the pooled weights `c`, from which the
gradient of `c` is known, and once to take it through both softmaxes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

# Features that a product takes at once: what it reads of them has to fit into registers.
FEATURES = 32

# Reads some features of a row.
Row = Callable[[Any], Array]


class Inputs(NamedTuple):
    """References to what programs read, padded, valid rows of a user first.

    Attributes:
      counts: `[u]`; how many rows each user has.
      users: `[u, d]`, of HLR++ only.
      user_slots: `[u, P, M]`, slot weights of users with their rows, of HLR++ only.
    """

    counts: Any
    items: Any
    rows: Any
    key: Any
    user_query: Any
    item_query: Any
    gram: Any
    users: Any = None
    user_slots: Any = None


class Gradients(NamedTuple):
    """References to parts of a gradient, `[of a range of tiles or of a group of users, ..]`."""

    items: Any
    rows: Any
    key: Any
    user_query: Any
    item_query: Any
    gram: Any
    users: Any = None
    user_slots: Any = None


class Block(NamedTuple):
    """What is the same for all programs.

    Attributes:
      slots: memory slots that are no padding.
      tile: items of a tile.
      tiles: how many tiles there are.
      tiles_of_range: tiles that a program of the gradient takes.
      users_of_group: users that a program of the gradient takes.
      beta: smoothing of the attention over references.
      precision: of products, as JAX has it.
      interpret: whether Pallas interprets the program, for tests.
    """

    slots: int
    tile: int
    tiles: int
    tiles_of_range: int
    users_of_group: int
    beta: float
    precision: Any
    interpret: bool

    def dot(self, x: Array, y: Array, axes: tuple[int, int] = (1, 0)) -> Array:
        """Multiply matrices, summing over these axes."""
        return jax.lax.dot_general(
            x,
            y,
            (((axes[0],), (axes[1],)), ((), ())),
            precision=self.precision,
            preferred_element_type=x.dtype,
        )


class Place(NamedTuple):
    """What a program is at: a user with items of a tile, in its range of tiles and its group."""

    user: Array
    items: Any
    tiles: Array
    group: Array


class Pooled(NamedTuple):
    """The attention of a user over its references, for each item of a tile.

    Attributes:
      top: largest logit `w_k`.
      total: `sum_k exp(w_k - top)`.
      factor: `a_k / exp(w_k - top)`.
      c: pooled slot weights.
    """

    top: Float[Array, " t"]
    total: Float[Array, " t"]
    factor: Float[Array, " t"]
    c: Float[Array, "t m"]


class Mirrored(NamedTuple):
    """The attention of each item of a tile over itself and a user's rows, of HLR++.

    Attributes:
      own: slot weights of the user with the item.
      own_attention: `a` of these.
      own_share: what `a` is for `beta = 1`.
      attention: `a_k` of the rows.
      share: what these are for `beta = 1`.
      c: pooled slot weights.
    """

    own: Float[Array, "t m"]
    own_attention: Float[Array, "t 1"]
    own_share: Float[Array, "t 1"]
    attention: Float[Array, "t p"]
    share: Float[Array, "t p"]
    c: Float[Array, "t m"]


def forward(*refs: Any, block: Block) -> None:
    """Write the change of one user's distance to the items of one tile."""
    inputs, out = Inputs(*refs[:-1]), refs[-1]
    items, user = pl.ds(pl.program_id(0) * block.tile, block.tile), pl.program_id(1)
    c = _pool(inputs, user, items, block).c
    if inputs.users is not None:
        c += _mirror(inputs, user, items, block).c
    queries = 2 * (inputs.user_query[user, :][None] - inputs.item_query[items, :])
    out[user, items] = jnp.sum(c * (queries + block.dot(c, inputs.gram[:, :])), axis=1)


def backward(*refs: Any, block: Block) -> None:
    """Add up the gradient over a range of tiles and a group of users.

    The references are those to the inputs, to the cotangent `[u, n]`, to zeros that the gradients
    start from, and to the gradients. No other program writes to the same place of these.
    """
    width = (len(refs) - 2) // 3
    inputs, cotangent, gradients = (
        Inputs(*refs[: width + 1]),
        refs[width + 1],
        Gradients(*refs[-width:]),
    )
    tiles, group = pl.program_id(0), pl.program_id(1)
    start, first = tiles * block.tiles_of_range, group * block.users_of_group

    def of_tile(tile: Array, carry: None) -> None:
        items = pl.ds(tile * block.tile, block.tile)

        def of_user(user: Array, carry: None) -> None:
            place = Place(user, items, tiles, group)
            _backward_of_pair(inputs, cotangent, gradients, place, block)

        return jax.lax.fori_loop(first, first + block.users_of_group, of_user, carry)

    end = jnp.minimum(start + block.tiles_of_range, block.tiles)
    jax.lax.fori_loop(start, end, of_tile, None)


def _slots(inputs: Inputs, row: Row, items: Any, block: Block) -> Float[Array, "t m"]:
    """Compute `softmax((i * row) @ key)` of one row with the items of a tile."""
    dim, width = inputs.key.shape

    def add(part: Array, logits: Array) -> Array:
        features = pl.ds(part * FEATURES, FEATURES)
        keyed = row(features)[:, None] * inputs.key[features, :]
        return logits + block.dot(inputs.items[items, features], keyed)

    logits = jnp.zeros((block.tile, width), inputs.key.dtype)
    logits = jax.lax.fori_loop(0, dim // FEATURES, add, logits)
    slot = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(slot < block.slots, logits, -jnp.inf)
    exps = jnp.exp(logits - jnp.max(logits, axis=1)[:, None])
    return exps / jnp.sum(exps, axis=1)[:, None]


def _pool(inputs: Inputs, user: Array, items: Any, block: Block) -> Pooled:
    """Pool a user's references by `attention_weights`, for each item of a tile."""
    dtype = inputs.key.dtype
    query = inputs.user_query[user, :]

    def add(reference: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, c = carry
        slots = _slots(inputs, lambda part: inputs.rows[user, reference, part], items, block)
        logit = jnp.sum(slots * query[None], axis=1)
        now = jnp.maximum(top, logit)
        old, new = jnp.exp(top - now), jnp.exp(logit - now)
        return now, total * old + new, c * old[:, None] + new[:, None] * slots

    start = (
        jnp.full(block.tile, -jnp.inf, dtype),
        jnp.zeros(block.tile, dtype),
        jnp.zeros((block.tile, query.shape[0]), dtype),
    )
    count = inputs.counts[user]
    top, total, c = jax.lax.fori_loop(0, count, add, start)
    # Of no references at all every sum is 0, and so is `c`.
    top, total = jnp.where(count > 0, top, 0), jnp.where(count > 0, total, 1)
    factor = jnp.exp((1 - block.beta) * top - block.beta * jnp.log(total))
    return Pooled(top, total, factor, c * factor[:, None])


def _mirror(inputs: Inputs, user: Array, items: Any, block: Block) -> Mirrored:
    """Pool the slot weights of a user with an item and its rows, for each item of a tile."""
    query, slots = inputs.item_query[items, :], inputs.user_slots[user, :, :]
    own = _slots(inputs, lambda part: inputs.users[user, part], items, block)
    own_logit = jnp.sum(own * query, axis=1)
    logits = block.dot(query, slots, (1, 1))
    place = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(place < inputs.counts[user], logits, -jnp.inf)
    top = jnp.maximum(own_logit, jnp.max(logits, axis=1))
    own_exps, exps = jnp.exp(own_logit - top)[:, None], jnp.exp(logits - top[:, None])
    total = own_exps + jnp.sum(exps, axis=1)[:, None]
    factor = jnp.exp((1 - block.beta) * top[:, None] - block.beta * jnp.log(total))
    c = factor * (own_exps * own + block.dot(exps, slots))
    return Mirrored(own, own_exps * factor, own_exps / total, exps * factor, exps / total, c)


def _backward_of_pair(
    inputs: Inputs, cotangent: Any, gradients: Gradients, place: Place, block: Block
) -> None:
    """Add what one user with one tile of items contributes to the gradient."""
    user, items, tiles, group = place
    query, gram = inputs.user_query[user, :], inputs.gram[:, :]
    pooled = _pool(inputs, user, items, block)
    c, weight = pooled.c, cotangent[user, items][:, None]
    if inputs.users is not None:
        mirrored = _mirror(inputs, user, items, block)
        c += mirrored.c
    of_c = 2 * (query[None] - inputs.item_query[items, :])
    of_c = weight * (of_c + block.dot(c, gram) + block.dot(c, gram, (1, 1)))
    of_gap = 2 * weight * c
    every = slice(None)
    _add(gradients.item_query, (group, items, every), -of_gap)
    _add(gradients.gram, (tiles, group, every, every), block.dot(c, weight * c, (0, 0)))
    of_items = jnp.zeros((block.tile, inputs.key.shape[0]), c.dtype)
    of_key = jnp.zeros(inputs.key.shape, c.dtype)
    if inputs.users is not None:
        of_items, of_key = _backward_of_mirrored(inputs, mirrored, of_c, (gradients, place), block)
        _wait(block)
    centre = jnp.sum(of_c * pooled.c, axis=1)

    def of_reference(reference: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        of_items, of_key, of_query = carry
        slots = _slots(inputs, lambda part: inputs.rows[user, reference, part], items, block)
        logit = jnp.sum(slots * query[None], axis=1)
        exps = jnp.exp(logit - pooled.top)
        attention, share = exps * pooled.factor, exps / pooled.total
        # da_k/dw_j = a_k (delta_kj - beta p_j), and sum_k a_k s_k . of_c = c . of_c.
        through = attention * jnp.sum(of_c * slots, axis=1)
        of_logit = through - block.beta * share * centre
        of_slots = attention[:, None] * of_c + of_logit[:, None] * query[None]
        of_slots = slots * (of_slots - (through + of_logit * logit)[:, None])
        row = inputs.rows[user, reference, :]
        add_items, add_key, of_row = _backward_of_row(inputs, row, of_slots, items, block)
        _add(gradients.rows, (tiles, user, reference, every), of_row)
        _wait(block)
        return of_items + add_items, of_key + add_key, of_query + of_logit[:, None] * slots

    of_items, of_key, of_query = jax.lax.fori_loop(
        0, inputs.counts[user], of_reference, (of_items, of_key, of_gap)
    )
    _add(gradients.items, (group, items, every), of_items)
    _add(gradients.key, (tiles, group, every, every), of_key)
    _add(gradients.user_query, (tiles, user, every), jnp.sum(of_query, axis=0))
    _wait(block)


def _backward_of_mirrored(
    inputs: Inputs,
    mirrored: Mirrored,
    of_c: Float[Array, "t m"],
    to: tuple[Gradients, Place],
    block: Block,
) -> tuple[Array, Array]:
    """Add what the user's side contributes, and return what it does to items and key."""
    gradients, (user, items, tiles, group) = to
    query, slots, own = inputs.item_query[items, :], inputs.user_slots[user, :, :], mirrored.own
    every = slice(None)
    centre = jnp.sum(of_c * mirrored.c, axis=1)[:, None]
    of_logits = mirrored.attention * block.dot(of_c, slots, (1, 1))
    of_logits -= block.beta * mirrored.share * centre
    of_user_slots = block.dot(mirrored.attention, of_c, (0, 0)) + block.dot(
        of_logits, query, (0, 0)
    )
    of_logit = mirrored.own_attention * jnp.sum(of_c * own, axis=1)[:, None]
    of_logit -= block.beta * mirrored.own_share * centre
    of_own = mirrored.own_attention * of_c + of_logit * query
    of_own = own * (of_own - jnp.sum(own * of_own, axis=1)[:, None])
    row = inputs.users[user, :]
    of_items, of_key, of_user = _backward_of_row(inputs, row, of_own, items, block)
    _wait(block)
    of_query = of_logit * own + block.dot(of_logits, slots)
    _add(gradients.item_query, (group, items, every), of_query)
    _add(gradients.users, (tiles, user, every), of_user)
    _add(gradients.user_slots, (tiles, user, every, every), of_user_slots)
    return of_items, of_key


def _backward_of_row(
    inputs: Inputs,
    row: Float[Array, " d"],
    of_logits: Float[Array, "t m"],
    items: Any,
    block: Block,
) -> tuple[Array, Array, Array]:
    """Take the gradient of the logits `(i * row) @ key` to the items, the key and the row."""
    of_items = block.dot(of_logits, row[:, None] * inputs.key[:, :], (1, 1))
    of_keyed = block.dot(inputs.items[items, :], of_logits, (0, 0))
    return of_items, row[:, None] * of_keyed, jnp.sum(of_keyed * inputs.key[:, :], axis=1)


def _add(ref: Any, index: tuple[Any, ...], value: Array) -> None:
    ref[index] = ref[index] + value


def _wait(block: Block) -> None:
    """Let all threads of a program see what each of them wrote."""
    if not block.interpret:
        plgpu.debug_barrier()

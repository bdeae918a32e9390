"""Scores of users with a tile of items, for ranking, from slot weights alone.

A relation that is read from memory is `r = c @ memory`, with few coordinates `c [M]`. Where many
items are scored, neither `r [d]` of a pair nor the relations to its references need to be known.
The items of the tile are the last axis throughout, `[.., M, T]`: then every sum over slots and
over references adds up whole rows of a tile.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional import attention_weights, pairwise_squared_distances
from hlr_jax.kernels.sizes import block_rows, scores_single_rows


def slots_of_row(
    items: Float[Array, "t d"], key: Float[Array, "d m"]
) -> Callable[[Float[Array, " d"]], Float[Array, "m t"]]:
    """Return a function from a row to its `memory_attention` with every item of a tile.

    `(x * i) @ key = x @ tile_key`, so that of many rows is one matrix product.
    """
    shape = key.shape[1], len(items)
    tile_key = (items.T[:, None, :] * key[:, :, None]).reshape(len(key), -1)
    return lambda row: jax.nn.softmax((row @ tile_key).reshape(shape), axis=0)


def tile_memory_attention(
    x: Float[Array, "n d"], items: Float[Array, "t d"], key: Float[Array, "d m"]
) -> Float[Array, "n m t"]:
    """Compute the `memory_attention` of every row with every item of a tile."""
    return blockwise(slots_of_row(items, key), (x,), key.shape[1] * len(items))


def tile_logits(
    slots: Float[Array, "p m t"], memory_query: Float[Array, " m"]
) -> Float[Array, "p t"]:
    """Compute the logit `w_k = query . r_k` of each reference with each item.

    Args:
      memory_query: `memory @ query`, so that `w_k = s_k . memory_query`.
    """
    return jnp.sum(slots * memory_query[None, :, None], axis=1)


def tile_attention_weights(
    logits: Sequence[Float[Array, "_ t"]], masks: Sequence[Bool[Array, " _"]], beta: float
) -> list[Float[Array, "_ t"]]:
    """Compute `attention_weights` over groups of references together, for each item."""
    attention = jax.vmap(functools.partial(attention_weights, beta=beta), (1, None), 1)
    weights = attention(jnp.concatenate(logits), jnp.concatenate(masks))
    ends = [sum(map(len, logits[:end])) for end in range(1, len(logits))]
    return jnp.split(weights, ends)


def tile_pool(weights: Float[Array, "p t"], slots: Float[Array, "p m t"]) -> Float[Array, "m t"]:
    """Pool slot weights, `sum_k a_k s_k`, for each item of a tile.

    Written out, this is one loop over `[M, T]`; a sum over a leading axis takes XLA many times
    longer on CPU.
    """
    return functools.reduce(jnp.add, (weights[p][None] * slots[p] for p in range(len(slots))))


def relation_scores(
    coordinates: Callable[..., Float[Array, "m t"]],
    args: Any,
    users: Float[Array, "u d"],
    items: Float[Array, "t d"],
    memory: Float[Array, "m d"],
    floats: int,
) -> Float[Array, "u t"]:
    """Score every user with every item, `-||u + r - i||^2`, where `r = c @ memory`.

    That is `-||u - i||^2 - c . (2 memory @ (u - i) + memory @ memory.T @ c)`.

    Args:
      coordinates: `c` of one user with the items, of that user's `args`.
      args: arguments of `coordinates`, with a leading axis of users.
      floats: how many numbers `coordinates` holds for one user.
    """
    change = change_of_distance(items, memory)

    def of_one(of_user: Float[Array, " m"], *own: Any) -> Float[Array, " t"]:
        return change(of_user, coordinates(*own))

    return -pairwise_squared_distances(users, items) - blockwise(
        of_one, (users @ memory.T, *args), floats
    )


def change_of_distance(
    items: Float[Array, "t d"], memory: Float[Array, "m d"]
) -> Callable[[Float[Array, " m"], Float[Array, "m t"]], Float[Array, " t"]]:
    """Return a function that computes how a relation `c @ memory` changes squared distances.

    It takes `memory @ user` and the coordinates `c` of the user's relation to each item.
    """
    of_items, gram = memory @ items.T, memory @ memory.T

    def change(of_user: Float[Array, " m"], c: Float[Array, "m t"]) -> Float[Array, " t"]:
        return jnp.sum(c * (2 * (of_user[:, None] - of_items) + gram @ c), axis=0)

    return change


def blockwise(function: Callable[..., Array], args: Any, floats: int) -> Array:
    """Apply `function` to each row of `args`, to as many together as fit into fast memory.

    Args:
      floats: how many numbers `function` holds for one row.
    """
    size = block_rows(len(jax.tree.leaves(args)[0]), floats)
    return jax.lax.map(lambda row: function(*row), args, batch_size=size)


def rowwise(function: Callable[..., Array], args: Any, floats: int) -> Array:
    """Apply `function` to one row of `args` after another, or `blockwise` on accelerators."""
    if scores_single_rows():
        return jax.lax.map(lambda row: function(*row), args)
    return blockwise(function, args, floats)


def tilewise(
    function: Callable[[Float[Array, "s d"]], Any], items: Float[Array, "t d"], size: int
) -> Any:
    """Apply `function` to `size` items at a time, and put the results `[u, s]` side by side.

    Args:
      function: returns an array `[u, s]`, or several.
    """
    if size >= len(items):
        return function(items)
    tiles = -(-len(items) // size)
    padded = jnp.pad(items, ((0, tiles * size - len(items)), (0, 0)))

    def joined(x: Float[Array, "n u s"]) -> Float[Array, "u t"]:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, : len(items)]

    return jax.tree.map(joined, jax.lax.map(function, padded.reshape(tiles, size, -1)))

"""How a relation changes squared distances, by its coordinates in a memory or a history."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.attention import attention_weights, memory_attention


class MemoryPairs(NamedTuple):
    """Users and the items that they share, each pair to be related through one memory.

    Attributes:
      items: `[n, d]`.
      rows: `[u, P, d]`; what a user refers to: rows of its history, its own row, or both.
      mask: `[u, P]`; which of them count.
      key: `[d, M]`.
      user_query: `[u, M]`, `memory @ user`.
      item_query: `[n, M]`, `memory @ item`.
      gram: `[M, M]`, `memory @ memory.T`.
    """

    items: Float[Array, "n d"]
    rows: Float[Array, "u p d"]
    mask: Bool[Array, "u p"]
    key: Float[Array, "d m"]
    user_query: Float[Array, "u m"]
    item_query: Float[Array, "n m"]
    gram: Float[Array, "m m"]


class TwoSidedPairs(NamedTuple):
    """Pairs that HLR++ relates from the user's side too.

    Attributes:
      pairs: whose rows are histories alone.
      users: `[u, d]`.
    """

    pairs: MemoryPairs
    users: Float[Array, "u d"]


def memory_pairs(
    users: Float[Array, "u d"],
    items: Float[Array, "n d"],
    rows: Float[Array, "u p d"],
    mask: Bool[Array, "u p"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
) -> MemoryPairs:
    """Multiply a memory into users and items, and into itself.

    Args:
      rows: what each user refers to.
      mask: which of these rows count.
    """
    return MemoryPairs(
        items, rows, mask, key, users @ memory.T, items @ memory.T, memory @ memory.T
    )


def relation_change(pairs: MemoryPairs | TwoSidedPairs, beta: float = 1.0) -> Float[Array, "u n"]:
    """Compute by how much a relation `r = c @ memory` changes the squared distance of every pair.

    With `s_k = softmax((i * p_k) @ key)` and `a = attention_weights` of `w_k = s_k . (memory @ u)`
    HLR's relation is `c = sum_k a_k s_k` (Tran et al. 2021, sections 3.2 and 3.3; LRML's, Tay et
    al. 2018, where the user's own row is the only one), and

    `||u + r - i||^2 - ||u - i||^2 = c . (2 memory @ (u - i) + memory @ memory.T @ c)`.

    HLR++ adds to `c` the same of the user with the item and its history, weighed by the item.

    The definition, which holds the products `[u, n, P, d]`; `kernels.relation_change` gives the
    same numbers in little memory.
    """
    if isinstance(pairs, TwoSidedPairs):
        c, pairs = _coordinates(pairs.pairs, beta) + _mirrored(pairs, beta), pairs.pairs
    else:
        c = _coordinates(pairs, beta)
    queries = 2 * (pairs.user_query[:, None] - pairs.item_query[None])
    return jnp.sum(c * (queries + c @ pairs.gram), axis=-1)


def _coordinates(pairs: MemoryPairs, beta: float) -> Float[Array, "u n m"]:
    """Pool the slot weights of each item with the user's rows, weighed by the user."""
    slots = memory_attention(pairs.items[None, :, None], pairs.rows[:, None], pairs.key)
    logits = jnp.sum(slots * pairs.user_query[:, None, None], axis=-1)
    weights = attention_weights(logits, pairs.mask[:, None], beta)
    return jnp.sum(weights[..., None] * slots, axis=-2)


def _mirrored(two_sided: TwoSidedPairs, beta: float) -> Float[Array, "u n m"]:
    """Pool the slot weights of each user with the item and its rows, weighed by the item."""
    pairs, users = two_sided
    own = memory_attention(users[:, None], pairs.items[None], pairs.key)
    slots = memory_attention(users[:, None], pairs.rows, pairs.key)
    slots = jnp.broadcast_to(slots[:, None], (*own.shape[:2], *slots.shape[1:]))
    slots = jnp.concatenate([own[:, :, None], slots], axis=2)  # [u, n, 1 + P, M]
    mask = jnp.pad(pairs.mask, ((0, 0), (1, 0)), constant_values=True)
    logits = jnp.sum(slots * pairs.item_query[None, :, None], axis=-1)
    weights = attention_weights(logits, mask[:, None], beta)
    return jnp.sum(weights[..., None] * slots, axis=-2)


def pooling_change(
    user: Float[Array, " d"],
    items: Float[Array, "t d"],
    rows: Float[Array, "p d"],
    weights: Float[Array, "t p"],
) -> Float[Array, " t"]:
    """Compute by how much `r = weights @ rows` changes a user's squared distance to each item.

    `||u + r - i||^2 - ||u - i||^2 = a . (2 rows @ (u - i) + G @ a)`, with an item's weights `a` and
    `G = rows @ rows.T`: relations `[t, d]` are not built.
    """
    # Rows are the last axis: the sums over them are then fastest on a CPU.
    queries = 2 * ((rows @ user)[None] - items @ rows.T)
    return jnp.sum(weights * (queries + weights @ (rows @ rows.T)), axis=-1)

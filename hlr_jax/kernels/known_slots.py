"""Distances of users whose rows change, while their histories and the items stay.

So it is when rows are fitted. Slot weights of every item with every row of a history are then known
before the first step, and what is left to do is linear in them. The items are the last axis, and
sums are written so that XLA makes loops over whole rows of items of them on a CPU.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional import attention_weights, memory_attention, pairwise_squared_distances
from hlr_jax.types import HistoryIds


class KnownSlots(NamedTuple):
    """What users' rows do not change.

    Attributes:
      rows: `[u, P, d]`; of the histories, 0 where none counts.
      slots: `[u, P, M, n]`; slot weights of each of these with every item.
      mask: `[u, P, n]`; which of them count for an item, which is left out of its own history.
      key: `[d, M]`.
      memory: `[M, d]`.
    """

    rows: Float[Array, "u p d"]
    slots: Float[Array, "u p m n"]
    mask: Bool[Array, "u p n"]
    key: Float[Array, "d m"]
    memory: Float[Array, "m d"]

    @classmethod
    def of(
        cls,
        items: Float[Array, "n d"],
        history: HistoryIds,
        key: Float[Array, "d m"],
        memory: Float[Array, "m d"],
    ) -> "KnownSlots":
        """Compute the slot weights of items with the rows of histories, which are among them."""
        places, counts = history
        rows = jnp.where(counts[..., None], items[places], 0)
        slots = jax.nn.softmax(_keyed(rows, key) @ items.T, axis=2)
        is_other = places[..., None] != jnp.arange(len(items), dtype=places.dtype)[None, None]
        return cls(rows, slots, counts[..., None] & is_other, key, memory)


def distances_by_known_slots(
    users: Float[Array, "u d"],
    items: Float[Array, "n d"],
    known: KnownSlots,
    beta: float,
    has_own: bool = False,
    is_two_sided: bool = False,
) -> Float[Array, "u n"]:
    """Measure `||u + r - i||^2` of every user and item, `r = c @ memory`.

    `c` is that of `functional.relation_change`.

    Args:
      has_own: whether the user's own row is one more reference of an item (HLR).
      is_two_sided: whether the user has references too, the item and its history, weighed by the
        item (HLR++).
    """
    key, memory = known.key, known.memory
    user_query, item_query, gram = users @ memory.T, memory @ items.T, memory @ memory.T
    own = jax.nn.softmax(_keyed(users, key) @ items.T, axis=1)  # [u, M, n]
    c = _pooled(beta, known.slots, known.mask, user_query, own[:, None][:, : int(has_own)])
    if is_two_sided:
        c = c + _mirrored(users, item_query, known, own, beta)
    queries = 2 * (user_query[..., None] - item_query[None])
    change = jnp.sum(c * (queries + gram @ c), axis=1)
    return pairwise_squared_distances(users, items) + change


def _keyed(rows: Float[Array, "*b d"], key: Float[Array, "d m"]) -> Float[Array, "*b m d"]:
    """Multiply the key into rows: `(x * i) @ key = (x * key.T) @ i`."""
    return jnp.einsum("...d,dm->...md", rows, key)


def _mirrored(
    users: Float[Array, "u d"],
    item_query: Float[Array, "m n"],
    known: KnownSlots,
    own: Float[Array, "u m n"],
    beta: float,
) -> Float[Array, "u m n"]:
    """Pool the slot weights of a user with the item and its history, weighed by the item."""
    of_user = memory_attention(users[:, None], known.rows, known.key)
    own_logits = jnp.sum(own * item_query[None], axis=1)[:, None]
    logits = jnp.concatenate([own_logits, of_user @ item_query], axis=1)
    mask = jnp.pad(known.mask, ((0, 0), (1, 0), (0, 0)), constant_values=True)
    turned = attention_weights(jnp.moveaxis(logits, 1, 2), jnp.moveaxis(mask, 1, 2), beta)
    weights = jnp.moveaxis(turned, 2, 1)
    return weights[:, :1] * own + jnp.swapaxes(of_user, 1, 2) @ weights[:, 1:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pooled(
    beta: float,
    slots: Float[Array, "u p m n"],
    mask: Bool[Array, "u p n"],
    query: Float[Array, "u m"],
    own: Float[Array, "u o m n"],
) -> Float[Array, "u m n"]:
    """Pool slot weights, `c = sum_k a_k s_k` with `attention_weights` `a` of `w_k = s_k . query`.

    Only the query and the user's own slot weights, of none or one more reference, have a gradient.
    """
    return _pooled_forward(beta, slots, mask, query, own)[0]


def _pooled_forward(
    beta: float, slots: Array, mask: Array, query: Array, own: Array
) -> tuple[Array, Any]:
    own_logits = _over_slots(own, query[:, None, :, None])
    logits = jnp.where(mask, _over_slots(slots, query[:, None, :, None]), -jnp.inf)
    logits = jnp.concatenate([own_logits, logits], axis=1)
    top = jnp.max(logits, axis=1)
    top = jnp.where(jnp.isfinite(top), top, 0)
    exps = jnp.exp(logits - top[:, None])
    total = jnp.sum(exps, axis=1)
    total = jnp.where(total > 0, total, 1)
    shares = exps / total[:, None]
    weights = shares * (jnp.exp((1 - beta) * top) * total ** (1 - beta))[:, None]
    c = _sum(
        a[:, None] * s for a, s in zip(_along(weights), [*_along(own), *_along(slots)], strict=True)
    )
    return c, (slots, query, own, weights, shares, c)


def _pooled_backward(beta: float, saved: Any, cotangent: Array) -> tuple[Any, ...]:
    slots, query, own, weights, shares, c = saved
    number = own.shape[1]
    # sum_k a_k (cotangent . s_k) = cotangent . c
    mean = jnp.sum(cotangent * c, axis=1)[:, None]

    def of_logits(slots: Array, part: slice) -> Array:
        of_weights = _over_slots(slots, cotangent[:, None])
        return weights[:, part] * of_weights - beta * shares[:, part] * mean

    own_logits, logits = of_logits(own, slice(number)), of_logits(slots, slice(number, None))
    of_query = jnp.sum(jnp.matmul(slots, logits[..., None])[..., 0], axis=1)
    of_query = of_query + jnp.sum(own * own_logits[:, :, None], axis=(1, 3))
    of_own = weights[:, :number, None] * cotangent[:, None]
    of_own = of_own + own_logits[:, :, None] * query[:, None, :, None]
    return None, None, of_query, of_own


_pooled.defvjp(_pooled_forward, _pooled_backward)


def _over_slots(x: Float[Array, "u p m n"], y: Float[Array, "u #p m #n"]) -> Float[Array, "u p n"]:
    return _sum(x[:, :, slot] * y[:, :, slot] for slot in range(x.shape[2]))


def _along(x: Array) -> list[Array]:
    """Take the references one by one."""
    return [x[:, place] for place in range(x.shape[1])]


def _sum(parts: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, parts)

"""Attention over memory slots, and over the references of a history.

HLR's relation to one reference is `r_k = s_k @ memory`. Everything HLR does with it is
linear, so the attention logit is `judge . r_k = s_k . (memory @ judge)` and the pooled
relation is `(sum_k a_k s_k) @ memory`. The functions here therefore work on the slot
weights `s_k [M]`; the relations `[.., P, d]` are never built.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class References(NamedTuple):
    """References that share a memory.

    Attributes:
      slots: `[*b, P, M]`; slot weights of each.
      mask: `[*b, P]`; which of them count.
      memory: `[M, d]`.
    """

    slots: Float[Array, "*#b p m"]
    mask: Bool[Array, "*#b p"]
    memory: Float[Array, "m d"]


def memory_attention(
    x: Float[Array, "*#b d"], y: Float[Array, "*#b d"], key: Float[Array, "d m"]
) -> Float[Array, "*b m"]:
    """Slot weights of a pair, `softmax((x * y) @ key)`; symmetric in `x` and `y`.

    LRML (Tay et al. 2018, eqs. 1-3); HLR uses it between items too (Tran et al. 2021).
    """
    return jax.nn.softmax((x * y) @ key, axis=-1)


def history_attention(
    targets: Float[Array, "*b t d"], history: Float[Array, "*b p d"], key: Float[Array, "d m"]
) -> Float[Array, "*b t p m"]:
    """`memory_attention` of every target with every row of the history that the targets share.

    By definition `memory_attention(targets[..., None, :], history[..., None, :, :], key)`, which
    holds the products `[*b, T, P, d]`. Here the key takes in the targets instead, so that one
    product per history serves them all, and the gradient is two more such products.
    """
    batch, (count, dim), length = targets.shape[:-2], targets.shape[-2:], history.shape[-2]
    slots = _shared_slots(
        targets.reshape(-1, count, dim), history.reshape(-1, length, dim), key
    )  # [b, P, T, M]
    return jnp.moveaxis(slots, 1, 2).reshape(*batch, count, length, key.shape[-1])


@jax.custom_vjp
def _shared_slots(
    targets: Float[Array, "b t d"], history: Float[Array, "b p d"], key: Float[Array, "d m"]
) -> Float[Array, "b p t m"]:
    count, slots = targets.shape[1], key.shape[1]
    # [b, d, T, M]: of each target, the key it puts to the history.
    keyed = jnp.moveaxis(targets[..., None] * key[None, None], 1, 2)
    logits = history @ keyed.reshape(*keyed.shape[:2], count * slots)
    return jax.nn.softmax(logits.reshape(*history.shape[:2], count, slots), axis=-1)


def _shared_slots_forward(targets: Array, history: Array, key: Array) -> tuple[Array, Any]:
    slots = _shared_slots(targets, history, key)
    return slots, (targets, history, key, slots)


def _shared_slots_backward(saved: Any, cotangent: Array) -> tuple[Array, Array, Array]:
    targets, history, key, slots = saved
    centred = cotangent - jnp.sum(slots * cotangent, axis=-1, keepdims=True)
    logits = (slots * centred).reshape(*slots.shape[:2], -1)  # [b, P, T M]
    keyed = targets[:, :, None] * key.T[None, None]  # [b, T, M, d]
    of_history = logits @ keyed.reshape(len(keyed), -1, keyed.shape[-1])
    # Transposed first: XLA would fold it into the product, which is slower on a CPU.
    turned = jax.lax.optimization_barrier(jnp.swapaxes(logits, 1, 2))
    of_keyed = (turned @ history).reshape(keyed.shape)
    # A sum over few slots of whole rows, which a reduction along that axis does much more slowly.
    of_targets = functools.reduce(
        jnp.add, (of_keyed[:, :, slot] * key[None, None, :, slot] for slot in range(key.shape[1]))
    )
    of_key = jnp.sum(of_keyed * targets[:, :, None], axis=(0, 1)).T
    return of_targets, of_history, of_key


_shared_slots.defvjp(_shared_slots_forward, _shared_slots_backward)


def attention_weights(
    logits: Float[Array, "*b p"], mask: Bool[Array, "*#b p"], beta: float = 1.0
) -> Float[Array, "*b p"]:
    """Masked, smoothed softmax: `a_k = exp(w_k) / (sum_j exp(w_j))^beta` over the valid entries.

    `beta = 1` is a softmax; `beta < 1` damps the denominator, so that long histories are
    not averaged away (NAIS, He et al. 2018, eq. 6; AdaCML, Zhang et al. 2019). Where the
    mask leaves nothing, all weights are 0. What stands at a masked position, even a
    non-finite number, changes neither the result nor a gradient.

    The largest logit is taken out before exponentiating. For `beta < 1` the exact value
    grows as `exp((1 - beta) * max w)` and overflows only where float32 cannot hold it.
    """
    mask = jnp.broadcast_to(mask, logits.shape)
    top = jnp.max(logits, axis=-1, keepdims=True, where=mask, initial=-jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    # The inner `where` keeps masked logits out of exp, whose overflow would poison gradients.
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, logits - top, 0)), 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    if beta == 1.0:
        return weights / total
    return weights * jnp.exp((1 - beta) * top) / total**beta


def attend(
    judge: Float[Array, "*#b d"], groups: Sequence[References], beta: float = 1.0
) -> Float[Array, "*b d"]:
    """One relation out of the relations to all references, weighed by a judge.

    `w_k = judge . r_k` and `r = sum_k a_k r_k` over the references of all groups, with
    `a` from `attention_weights` (HLR, Tran et al. 2021, section 3.3). Groups differ in
    their memory, or in which batch axes their slots vary along. No valid reference at all
    gives a zero relation.
    """
    logits = [
        jnp.sum(group.slots * (judge @ group.memory.T)[..., None, :], axis=-1) for group in groups
    ]
    batch = jnp.broadcast_shapes(*(logit.shape[:-1] for logit in logits))

    def joined(parts: Sequence[Array]) -> Array:
        return jnp.concatenate([jnp.broadcast_to(x, (*batch, x.shape[-1])) for x in parts], -1)

    weights = attention_weights(joined(logits), joined([group.mask for group in groups]), beta)
    ends = [sum(logit.shape[-1] for logit in logits[: i + 1]) for i in range(len(logits) - 1)]
    pooled = [
        jnp.sum(part[..., None] * group.slots, axis=-2) @ group.memory
        for part, group in zip(jnp.split(weights, ends, axis=-1), groups, strict=True)
    ]
    return functools.reduce(jnp.add, pooled)

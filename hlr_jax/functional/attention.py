"""Attend to memory slots, and to the references of a history.

HLR's relation to one reference is `r_k = s_k @ memory`. Everything HLR does with it is
linear, so the attention logit is `query . r_k = s_k . (memory @ query)` and the pooled
relation is `(sum_k a_k s_k) @ memory`. The functions here therefore work on the slot
weights `s_k [M]`; the relations `[.., P, d]` are never built.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

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
    """Compute the slot weights of a pair, `softmax((x * y) @ key)`; symmetric in `x` and `y`.

    LRML (Tay et al. 2018, eqs. 1-3); HLR uses it between items too (Tran et al. 2021).
    """
    return jax.nn.softmax((x * y) @ key, axis=-1)


def history_attention(
    targets: Float[Array, "*b t d"], history: Float[Array, "*b p d"], key: Float[Array, "d m"]
) -> Float[Array, "*b t p m"]:
    """Compute slot weights of every target with every row of the history that they share.

    The definition, which holds the products `[*b, T, P, d]`; `kernels.history_attention` gives the
    same numbers faster.
    """
    return memory_attention(targets[..., None, :], history[..., None, :, :], key)


def attention_weights(
    logits: Float[Array, "*b p"], mask: Bool[Array, "*#b p"], beta: float = 1.0
) -> Float[Array, "*b p"]:
    """Apply a masked, smoothed softmax over the valid entries.

    `a_k = exp(w_k) / (sum_j exp(w_j))^beta`.

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


class Attention(NamedTuple):
    """Weights over entries of which some count, for whoever looks at a trained model.

    Attributes:
      weights: `[*b, n]`; with `beta < 1` they do not add up to 1.
      mask: `[*b, n]`; which entries count.
    """

    weights: Float[Array, "*b n"]
    mask: Bool[Array, "*#b n"]


def reference_attention(
    query: Float[Array, "*#b d"], groups: Sequence[References], beta: float = 1.0
) -> Attention:
    """Weigh the references of all groups, one group after another, by `w_k = query . r_k`."""
    logits = [
        jnp.sum(group.slots * (query @ group.memory.T)[..., None, :], axis=-1) for group in groups
    ]
    batch = jnp.broadcast_shapes(*(logit.shape[:-1] for logit in logits))

    def joined(parts: Sequence[Array]) -> Array:
        return jnp.concatenate([jnp.broadcast_to(x, (*batch, x.shape[-1])) for x in parts], -1)

    mask = joined([group.mask for group in groups])
    return Attention(attention_weights(joined(logits), mask, beta), mask)


def attend(
    query: Float[Array, "*#b d"], groups: Sequence[References], beta: float = 1.0
) -> Float[Array, "*b d"]:
    """Pool the relations to all references into one, by attention of a query.

    `w_k = query . r_k` and `r = sum_k a_k r_k` over the references of all groups, with
    `a` from `attention_weights` (HLR, Tran et al. 2021, section 3.3). Groups differ in
    their memory, or in which batch axes their slots vary along. No valid reference at all
    gives a zero relation.
    """
    pooled = zip(pooled_slots(query, groups, beta), groups, strict=True)
    return functools.reduce(jnp.add, [slots @ group.memory for slots, group in pooled])


def pooled_slots(
    query: Float[Array, "*#b d"], groups: Sequence[References], beta: float = 1.0
) -> list[Float[Array, "*b m"]]:
    """Compute how much of each slot `attend` takes: `sum_k a_k s_k` of the memory of each group."""
    weights, _ = reference_attention(query, groups, beta)
    sizes = [group.slots.shape[-2] for group in groups]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return [
        jnp.sum(part[..., None] * group.slots, axis=-2)
        for part, group in zip(jnp.split(weights, ends, axis=-1), groups, strict=True)
    ]

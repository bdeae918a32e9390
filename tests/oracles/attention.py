"""Attention over memory slots and over references."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, as_array


def memory_attention(query_vector: ArrayLike, key: ArrayLike) -> Array:
    """Attention over the memory slots, ``s = softmax(query @ key)`` (LRML; HLR, item-item level).

    The query is the elementwise product of a target and a reference; ``s`` has one entry a slot.
    """
    logits = as_array(query_vector) @ as_array(key)
    exps = np.exp(logits - logits.max())
    return as_array(exps / exps.sum())


def latent_relation(target: ArrayLike, reference: ArrayLike, key: Array, memory: Array) -> Array:
    """``r = s @ memory`` with ``s = softmax((target * reference) @ key)`` (LRML)."""
    return memory_attention(as_array(target) * as_array(reference), key) @ memory


def smoothed_attention(weights: Sequence[float], beta: float) -> list[float]:
    """``a_k = exp(w_k) / (sum_l exp(w_l))^beta`` over the valid references (HLR, AdaCML).

    ``beta = 1`` is a softmax. Evaluated as ``exp(w_k - beta * logsumexp(w))``.
    """
    largest = max(weights)
    log_sum = largest + math.log(sum(math.exp(w - largest) for w in weights))
    return [math.exp(w - beta * log_sum) for w in weights]


def attend(query: Array, vectors: Sequence[Array], weights: Sequence[float], beta: float) -> Array:
    """``sum_k a_k v_k``; the zero vector (of the query's length) when there is no reference."""
    result = np.zeros(query.shape[0])
    if len(vectors) == 0:
        return result
    for a_k, v_k in zip(smoothed_attention(weights, beta), vectors, strict=True):
        result += a_k * v_k
    return result


def formed_slots(memory: ArrayLike, form: str = "free", norm: float = 0.0) -> Array:
    """Slots as a relation reads them, from ``memory`` as it is trained.

    - ``"free"``: as they are.
    - ``"centred"``: minus their mean.
    - ``"orthogonal"``: orthonormal, by Gram and Schmidt, in their order.

    A ``norm`` above 0 is that of every slot then.
    """
    slots = as_array(memory).copy()
    if form == "centred":
        mean = np.zeros(slots.shape[1])
        for slot in slots:
            mean += slot / len(slots)
        slots = slots - mean
    elif form == "orthogonal":
        for m in range(len(slots)):
            for earlier in slots[:m]:
                slots[m] -= (slots[m] @ earlier) * earlier
            slots[m] /= math.sqrt(slots[m] @ slots[m])
    elif form != "free":
        raise ValueError(f"unknown form {form!r}")
    if norm > 0:
        for m in range(len(slots)):
            slots[m] *= norm / math.sqrt(slots[m] @ slots[m])
    return slots

"""Compute the slot weights of targets with a history that they share, by one product."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def history_attention(
    targets: Float[Array, "*b t d"], history: Float[Array, "*b p d"], key: Float[Array, "d m"]
) -> Float[Array, "*b t p m"]:
    """Compute `functional.history_attention` without its products `[*b, T, P, d]`.

    The key is multiplied into the targets instead, so that one product per history serves them
    all, and the gradient is two more such products.
    """
    batch, (count, dim), length = targets.shape[:-2], targets.shape[-2:], history.shape[-2]
    if not length:
        return jnp.zeros((*batch, count, 0, key.shape[-1]), targets.dtype)
    slots = _slots(
        targets.reshape(-1, count, dim), history.reshape(-1, length, dim), key
    )  # [b, P, T, M]
    return jnp.moveaxis(slots, 1, 2).reshape(*batch, count, length, key.shape[-1])


@jax.custom_vjp
def _slots(
    targets: Float[Array, "b t d"], history: Float[Array, "b p d"], key: Float[Array, "d m"]
) -> Float[Array, "b p t m"]:
    count, slots = targets.shape[1], key.shape[1]
    # [b, d, T, M]: of each target, the key it puts to the history.
    keyed = jnp.moveaxis(targets[..., None] * key[None, None], 1, 2)
    logits = history @ keyed.reshape(*keyed.shape[:2], count * slots)
    return jax.nn.softmax(logits.reshape(*history.shape[:2], count, slots), axis=-1)


def _slots_forward(targets: Array, history: Array, key: Array) -> tuple[Array, Any]:
    slots = _slots(targets, history, key)
    return slots, (targets, history, key, slots)


def _slots_backward(saved: Any, cotangent: Array) -> tuple[Array, Array, Array]:
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


_slots.defvjp(_slots_forward, _slots_backward)

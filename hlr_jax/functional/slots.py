"""Forms of a memory's slots, which keep them from becoming all the same."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What the slots of a memory may be bound to be.
SLOT_FORMS = ("free", "centred", "orthogonal")


def centred_slots(memory: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """Take the mean slot out, so that equal slot weights read a relation of zero."""
    return memory - jnp.mean(memory, axis=0, keepdims=True)


def orthogonal_slots(memory: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """Make slots orthonormal, each from what earlier ones leave of it (Gram-Schmidt); `M <= d`."""
    q, r = jnp.linalg.qr(memory.T)
    # Of the two signs of each vector, the one along the slot: the other would jump.
    return (q * jnp.sign(jnp.diagonal(r))[None]).T


def scaled_slots(memory: Float[Array, "m d"], norm: float | Array) -> Float[Array, "m d"]:
    """Give every slot this norm."""
    squares = jnp.sum(jnp.square(memory), axis=1, keepdims=True)
    return norm * memory * jax.lax.rsqrt(squares + 1e-12)


def slot_similarity(memory: Float[Array, "m d"]) -> Float[Array, ""]:
    """Compute the mean squared cosine between two different slots; 0 for one slot."""
    unit = scaled_slots(memory, 1.0)
    between = jnp.square(unit @ unit.T) * (1 - jnp.eye(len(memory), dtype=unit.dtype))
    return jnp.sum(between) / max(1, len(memory) * (len(memory) - 1))

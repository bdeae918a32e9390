"""Distances between embeddings, and the ball or sphere they are kept in."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def squared_distance(x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
    """`||x - y||^2` over the last axis (CML, Hsieh et al. 2017, eq. 1, squared)."""
    return jnp.sum(jnp.square(x - y), axis=-1)


def project_on_ball(x: Float[Array, "... d"], radius: float) -> Float[Array, "... d"]:
    """Nearest point of the ball of this radius: `x * min(1, radius / ||x||)`, row by row.

    CML's constraint (Hsieh et al. 2017, section 3.4). A zero row stays zero.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # The root's gradient at 0 is infinite.
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return x * (radius / jnp.maximum(norm, radius))


def project_on_sphere(x: Float[Array, "... d"], radius: float) -> Float[Array, "... d"]:
    """Nearest point of the sphere of this radius: `x * radius / ||x||`, row by row.

    SFCML's constraint (Bao et al., TPAMI 2022). A zero row, which has no nearest point, stays.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # The root's gradient at 0 is infinite.
    return x * (radius / jnp.sqrt(jnp.where(square > 0, square, radius**2)))

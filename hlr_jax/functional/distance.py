"""Compute squared Euclidean distances, and keep rows in a ball or on a sphere."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def squared_distance(x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
    """Compute `||x - y||^2` over the last axis (CML, Hsieh et al. 2017, eq. 1, squared)."""
    return jnp.sum(jnp.square(x - y), axis=-1)


def pairwise_squared_distances(
    x: Float[Array, "n d"], y: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """Compute `||x||^2 + ||y||^2 - 2 x.y` of every row with every other by one product.

    In full float32 also where the default is less, as on GPUs (TF32) and TPUs (bfloat16): between
    close rows a small number is left of large ones, and would have few right digits. For the same
    reason the result may be slightly below 0.
    """
    x_norms = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    y_norms = jnp.sum(jnp.square(y), axis=-1)
    products = jnp.matmul(x, y.T, precision="highest")
    return x_norms + y_norms[None] - 2 * products


def project_on_ball(x: Float[Array, "... d"], radius: float | Array) -> Float[Array, "... d"]:
    """Project each row on the ball of this radius: `x * min(1, radius / ||x||)`.

    CML's constraint (Hsieh et al. 2017, section 3.4). A zero row stays zero.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # The root's gradient at 0 is infinite.
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return x * (radius / jnp.maximum(norm, radius))


def normalize(x: Float[Array, "... d"], radius: float | Array) -> Float[Array, "... d"]:
    """Scale each row to this length: `x * radius / ||x||`. A zero row stays zero."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # The root's gradient at 0 is infinite.
    return x * (radius / jnp.sqrt(jnp.where(square > 0, square, 1)))

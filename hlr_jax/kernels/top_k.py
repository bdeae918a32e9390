"""The k best of many scores, in two stages that sort few of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hlr_jax.kernels.sizes import top_k_group


def candidates(
    scores: Float[Array, "u t"], k: int
) -> tuple[Int[Array, "u c"], Float[Array, "u c"]]:
    """Leave out scores that are not among the k best, of equal ones the first.

    Returns:
      Places, increasing, and scores of what is left: all, or the groups of neighbours with the k
      largest maxima.
    """
    size = top_k_group(scores.shape[1], k)
    if size == 1:
        return jnp.broadcast_to(jnp.arange(scores.shape[1], dtype=jnp.int32), scores.shape), scores
    grouped = scores.reshape(len(scores), -1, size)
    # Before a score of a group that is left out come the maxima of k groups: a larger one, or an
    # equal one that stands in an earlier group. Kept in order, equal scores stay in order too.
    _, best = jax.lax.top_k(jnp.max(grouped, axis=2), k)
    groups = jnp.sort(best, axis=1)
    places = groups[..., None] * size + jnp.arange(size, dtype=jnp.int32)[None, None]
    found = jnp.take_along_axis(grouped, groups[..., None], axis=1)
    return places.reshape(len(scores), -1), found.reshape(len(scores), -1)

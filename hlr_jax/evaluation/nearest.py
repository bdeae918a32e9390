"""Which points are near each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.evaluation.requests import filled_up, ranked
from hlr_jax.functional.geometry import Geometry

# Rows whose distances to all others are held at once.
_AT_ONCE = 1024


def nearest(
    geometry: Geometry,
    points: Float[Array, "n d"],
    rows: Int[np.ndarray, "r"],
    k: int,
    allowed: Bool[np.ndarray, "n"],
) -> tuple[Int[np.ndarray, "r k"], Float[np.ndarray, "r k"]]:
    """Find the k allowed points nearest to each of some, themselves left out.

    Returns:
      Rows, -1 where fewer are left, and minus the distances.
    """
    ids = np.full((len(rows), k), -1, np.int32)
    scores = np.full((len(rows), k), -np.inf, np.float32)
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        padded = filled_up(part.astype(np.int32), _AT_ONCE)
        found = _nearest(geometry, points, padded, allowed, ranked(k, len(points)))
        for whole, values in zip((ids, scores), found, strict=True):
            whole[start : start + len(part)] = np.asarray(values)[: len(part), :k]
    return ids, scores


@functools.partial(jax.jit, static_argnames="k")
def _nearest(
    geometry: Geometry,
    points: Float[Array, "n d"],
    rows: Int[Array, "r"],
    allowed: Bool[Array, "n"],
    k: int,
) -> tuple[Int[Array, "r k"], Float[Array, "r k"]]:
    # Differences of large terms, of which TF32 products would lose the small ones.
    with jax.default_matmul_precision("highest"):
        scores = -geometry.pairwise(points[rows], points)
    itself = rows[:, None] == jnp.arange(len(points), dtype=rows.dtype)[None]
    scores = jnp.where(allowed[None] & ~itself, scores, -jnp.inf)
    scores, ids = jax.lax.top_k(scores, k)
    return jnp.where(scores > -jnp.inf, ids, -1), scores

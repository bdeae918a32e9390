"""Minimise the losses of many rows at once, each of which depends on its row alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Chosen on held-out users of MovieLens 1M (benchmarks/foldin): more change nothing there.
STEPS = 10
# How far the first step goes, before anything is known of the curvature.
_FIRST = 0.1
# A step that leads upwards is taken back, and tried again at this part of its length.
_BACK = 0.25


def minimised(
    losses: Callable[[Float[Array, "n a"]], Float[Array, "n"]],
    project: Callable[[Float[Array, "n a"]], Float[Array, "n a"]],
    start: Float[Array, "n a"],
) -> Float[Array, "n a"]:
    """Follow the projected gradient of each row, never upwards, in `STEPS` evaluations.

    The length of a step is the shorter one of Barzilai and Borwein (IMA J. Numer. Anal. 1988), from
    the change of the gradient over the last one; with projections that is the spectral projected
    gradient (Birgin, Martinez & Raydan, SIAM J. Optim. 2000), here without increases.

    Args:
      losses: of each row; row `n` of the result depends on row `n` only.
      project: brings rows back to where they may be.
      start: rows to begin with.
    """

    def evaluated(rows: Array) -> tuple[Array, Array]:
        def total(x: Array) -> tuple[Array, Array]:
            found = losses(x)
            return jnp.sum(found), found

        gradient, found = jax.grad(total, has_aux=True)(rows)
        return found[:, None], gradient

    def step(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        rows, loss, gradient, length = state
        tried = project(rows - length * gradient)
        new_loss, new_gradient = evaluated(tried)
        moved, change = tried - rows, new_gradient - gradient
        curved = jnp.sum(moved * change, axis=1, keepdims=True)
        square = jnp.sum(change**2, axis=1, keepdims=True)
        found = jnp.where(curved > 0, curved / jnp.maximum(square, 1e-20), length / _BACK)
        is_lower = new_loss <= loss
        length = jnp.where(is_lower, found, jnp.minimum(_BACK * length, found))
        now = (tried, new_loss, new_gradient)
        kept = (jnp.where(is_lower, x, y) for x, y in zip(now, state, strict=False))
        return (*kept, length)

    loss, gradient = evaluated(start)
    norm = jnp.sqrt(jnp.sum(gradient**2, axis=1, keepdims=True))
    state = (start, loss, gradient, _FIRST / (norm + 1e-12))
    return jax.lax.fori_loop(1, STEPS, step, state)[0]

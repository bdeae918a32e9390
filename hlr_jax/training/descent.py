"""Minimise the losses of many rows at once, each of which depends on its row alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# How far the first step goes, before anything is known of the curvature.
_FIRST = 0.1
# A step that leads upwards is taken back, and tried again at this part of its length.
_BACK = 0.25
# A row is done once a step lowers its loss by no more than this part of it. Chosen on held-out
# users of MovieLens 1M (benchmarks/foldin), where less changes nothing and most rows are done after
# eight evaluations; so many are the most.
_DONE, _MOST = 1e-4, 60


class _State(NamedTuple):
    """Rows, their losses and gradients, how long the next step is by these, and who is done."""

    turn: Int[Array, ""]
    rows: Float[Array, "n a"]
    losses: Float[Array, "n 1"]
    gradient: Float[Array, "n a"]
    length: Float[Array, "n 1"]
    is_done: Bool[Array, "n 1"]


def minimised(
    losses: Callable[[Float[Array, "n a"]], Float[Array, "n"]],
    project: Callable[[Float[Array, "n a"]], Float[Array, "n a"]],
    start: Float[Array, "n a"],
) -> Float[Array, "n a"]:
    """Follow the projected gradient of each row, never upwards, until it does not pay any more.

    The length of a step is the shorter one of Barzilai and Borwein (IMA J. Numer. Anal. 1988), from
    the change of the gradient over the last one; with projections that is the spectral projected
    gradient (Birgin, Martinez & Raydan, SIAM J. Optim. 2000), here without increases. Where rows
    are held back, at the surface of a ball, what a step cannot follow of the gradient is left out.

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

    def step(state: _State) -> _State:
        turn, rows, loss, gradient, length, is_done = state
        tried = project(rows - length * gradient)
        new_loss, new_gradient = evaluated(tried)
        moved = tried - rows
        # The change of the gradient, as far as steps can follow it from where rows may be.
        change = (tried - project(tried - length * new_gradient) + moved) / length
        curved = jnp.sum(moved * change, axis=1, keepdims=True)
        square = jnp.sum(change**2, axis=1, keepdims=True)
        short = jnp.where(curved > 0, curved / jnp.maximum(square, 1e-20), length / _BACK)
        is_lower = new_loss <= loss
        # Whoever is done stays, so that nobody depends on who else is fitted.
        taken = is_lower & ~is_done
        return _State(
            turn + 1,
            jnp.where(taken, tried, rows),
            jnp.where(taken, new_loss, loss),
            jnp.where(taken, new_gradient, gradient),
            jnp.where(is_lower, short, jnp.minimum(_BACK * length, short)),
            is_done | (is_lower & (loss - new_loss <= _DONE * jnp.abs(loss))),
        )

    def goes_on(state: _State) -> Bool[Array, ""]:
        return (state.turn < _MOST) & ~jnp.all(state.is_done)

    loss, gradient = evaluated(start)
    norm = jnp.sqrt(jnp.sum(gradient**2, axis=1, keepdims=True))
    length = _FIRST / (norm + 1e-12)
    turn = jnp.ones((), jnp.int32)
    first = _State(turn, start, loss, gradient, length, jnp.zeros(loss.shape, bool))
    return jax.lax.while_loop(goes_on, step, first).rows

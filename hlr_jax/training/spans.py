"""A span of steps that was sent to the devices, and what the host reads of it later."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from hlr_jax.training.state import TrainState, mean_of


class SentSpan(NamedTuple):
    """Steps that the devices were told to take, and numbers that tell how they went.

    The numbers are copies: the state after the span is donated to the next one, which is sent
    before anybody has read them.

    Attributes:
      start: first step, counted from the start of the epoch.
      stop: the one after the last.
      loss_sum: of the state after the span.
      loss_terms: of that state too.
      finite: whether each of the `arrays` is; looked at where an epoch ends.
      arrays: names of what was looked at.
    """

    start: int
    stop: int
    loss_sum: Array
    loss_terms: Array
    finite: Array
    arrays: tuple[str, ...]

    @classmethod
    def of(cls, state: TrainState, span: tuple[int, int], ends_epoch: bool) -> "SentSpan":
        """Ask for the numbers of a span, from the state after it; nothing is waited for."""
        arrays = _arrays(state) if ends_epoch else {}
        loss_sum, loss_terms, finite = _copied(state.loss_sum, state.loss_terms, arrays)
        for number in (loss_sum, loss_terms, finite):
            number.copy_to_host_async()
        return cls(*span, loss_sum, loss_terms, finite, tuple(sorted(arrays)))

    @property
    def steps(self) -> int:
        return self.stop - self.start

    def loss(self) -> float:
        """Wait until the steps are taken, and return the mean loss of the epoch so far."""
        return mean_of(self.loss_sum, self.loss_terms)

    def not_finite(self) -> list[str]:
        """Name the arrays that are not finite."""
        flags = np.asarray(self.finite)
        return [name for name, is_finite in zip(self.arrays, flags, strict=True) if not is_finite]


def not_finite(state: TrainState) -> list[str]:
    """Name the parameters, and what the optimizer knows of them, that are not finite."""
    return SentSpan.of(state, (0, 0), ends_epoch=True).not_finite()


def _arrays(state: TrainState) -> dict[str, Array]:
    """Name what has to be finite; single numbers of an optimizer may begin as infinite."""
    named = {**state.params, "optimizer": state.opt_state}
    leaves = jax.tree_util.tree_leaves_with_path(named)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in leaves
        if jnp.issubdtype(x.dtype, jnp.floating) and (x.ndim or "optimizer" not in str(path[0]))
    }


@jax.jit
def _copied(
    loss_sum: Array, loss_terms: Array, arrays: Mapping[str, Array]
) -> tuple[Array, Array, Bool[Array, "arrays"]]:
    finite = [jnp.isfinite(arrays[name]).all() for name in sorted(arrays)]
    return jnp.copy(loss_sum), jnp.copy(loss_terms), jnp.array(finite, bool)

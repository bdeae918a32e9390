"""A span of steps that was sent to the devices, and what the host reads of it later."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hlr_jax.training.state import TrainState, mean_of
from hlr_jax.types import Params


class SentSpan(NamedTuple):
    """Steps that the devices were told to take, and numbers that tell how they went.

    The numbers are copies: the state after the span is donated to the next one, which is sent
    before anybody has read them.

    Attributes:
      start: first step, counted from the start of the epoch.
      stop: the one after the last.
      loss_sum: of the state after the span.
      loss_terms: of that state too.
      is_finite: whether all parameters are finite; looked at where an epoch ends.
    """

    start: int
    stop: int
    loss_sum: Array
    loss_terms: Array
    is_finite: Array

    @classmethod
    def of(cls, state: TrainState, span: tuple[int, int], ends_epoch: bool) -> "SentSpan":
        """Ask for the numbers of a span, from the state after it; nothing is waited for."""
        params = state.params if ends_epoch else {}
        numbers = _copied(state.loss_sum, state.loss_terms, params)
        for number in numbers:
            number.copy_to_host_async()
        return cls(*span, *numbers)

    @property
    def steps(self) -> int:
        return self.stop - self.start

    def loss(self) -> float:
        """Wait until the steps are taken, and return the mean loss of the epoch so far."""
        return mean_of(self.loss_sum, self.loss_terms)


@jax.jit
def _copied(loss_sum: Array, loss_terms: Array, params: Params) -> tuple[Array, Array, Array]:
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(params)]
    return jnp.copy(loss_sum), jnp.copy(loss_terms), jnp.all(jnp.array(finite, bool))

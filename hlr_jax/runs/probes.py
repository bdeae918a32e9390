"""Try the losses of other packages on a few numbers, before anything is written."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hlr_jax.errors import InputError
from hlr_jax.functional.losses import Loss, NegativeDistances


def check_loss(loss: Loss, name: str) -> None:
    """Raise InputError where a loss from another package returns a wrong shape or no number.

    The library's own are tested.
    """
    cls = type(loss)
    if cls.__module__.startswith("hlr_jax."):
        return
    positive = jnp.array([0.0, 0.5, 4.0])
    values = jnp.array([[0.0, 1.0], [4.0, 0.25], [2.0, 3.0]])
    mask = jnp.array([[True, True], [True, False], [False, False]])
    field = f"config.loss.name={name!r}: {cls.__module__}.{cls.__qualname__}"
    found = _loss_and_terms(loss, positive, values, mask)
    for what, value in zip(("a loss", "num_terms"), found, strict=True):
        if jnp.shape(value) != positive.shape:
            raise InputError(
                f"{field} returned {what} of shape {jnp.shape(value)}, not {positive.shape}; "
                "return one number for each positive"
            )
        if not bool(jnp.isfinite(value).all()):
            raise InputError(
                f"{field} returned {what} that is not finite for squared distances from 0 to 4, or "
                "where no negative counts; mask what does not count by jnp.where"
            )


# Compiled once for all numbers of a loss, as in a sweep over them.
@jax.jit
def _loss_and_terms(loss: Loss, positive: Array, values: Array, mask: Array) -> tuple[Array, Array]:
    negatives = NegativeDistances(values, mask, 100)
    return loss(positive, negatives), loss.num_terms(positive, negatives)

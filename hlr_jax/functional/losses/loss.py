"""The contract of a loss: from distances to the positive and to negatives to a number."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.registry import Component, Registry


class NegativeDistances(NamedTuple):
    """Squared distances of users to negatives.

    Attributes:
      values: `[*b, K]`; finite, also where they do not count.
      mask: `[*b, K]`; which of them count.
      num_items: items of the catalogue that the negatives stand for.
    """

    values: Float[Array, "*b k"]
    mask: Bool[Array, "*b k"]
    num_items: int


class Loss(Component):
    """Base of all losses. Annotated fields are the options that `config.loss` takes.

    Float options are traced: another margin needs no new compilation.

    Attributes:
      shares_negatives: whether leading axes broadcast, so that negatives `[b, 1, K]` serve all
        positives `[b, P]` of a row in a time that grows with `P + K`; for batches of users.
      holds_constant: whether a part of the loss counts as a constant in its gradient
        (`jax.lax.stop_gradient`), so that finite differences are not that.
    """

    section: ClassVar[str] = "loss"
    shares_negatives: ClassVar[bool] = False
    holds_constant: ClassVar[bool] = False

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        """Compute the loss of each positive, against its negatives.

        Args:
          positive: `[*b]`, squared distance of a user to a positive.
        """
        raise NotImplementedError

    def num_terms(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        """Count the terms that each positive's loss is the sum of, for means over terms."""
        return jnp.ones_like(positive)


LOSSES: Registry[Loss] = Registry("loss", "loss.name")

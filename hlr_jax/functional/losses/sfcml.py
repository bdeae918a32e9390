"""SFCML: squared gaps over all items, without sampling (Bao et al., TPAMI 2022)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.registry import register


def squared_margin(
    positive: Float[Array, "*#b"],
    negatives: Float[Array, "*#b k"],
    mask: Bool[Array, "*#b k"],
    margin: float | Array,
) -> Float[Array, "*b"]:
    """Average `(margin + D(u, i) - D(u, j))^2` over the negatives that count; 0 without any.

    With all unseen items as negatives, every user weighed alike and rows on a sphere this is SFCML
    (Bao et al., "Rethinking Collaborative Metric Learning: Toward an Efficient Alternative without
    Negative Sampling", TPAMI 2022).

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that grows with `p + k`, because the mean is `(margin + D(u, i) - mean D)^2 + variance of D`.
    """
    number = jnp.sum(mask, axis=-1, dtype=negatives.dtype)
    mean = jnp.sum(jnp.where(mask, negatives, 0), axis=-1) / jnp.maximum(number, 1)
    apart = jnp.where(mask, negatives - mean[..., None], 0)
    variance = jnp.sum(jnp.square(apart), axis=-1) / jnp.maximum(number, 1)
    return jnp.where(number > 0, jnp.square(margin + positive - mean) + variance, 0)


@register("sfcml")
class SFCML(Loss):
    """The mean over negatives of the squared difference between gap and margin.

    Attributes:
      margin: by how much farther a negative should be than the positive.
    """

    margin: float = 0.5
    shares_negatives: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.margin >= 0, "margin", "the margin must not be negative")

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return squared_margin(positive, negatives.values, negatives.mask, self.margin)

"""SimpleX's contrastive loss: pull the positive, push negatives out to a margin."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.registry import register


def contrastive(
    positive: Float[Array, "*#b"],
    negatives: Float[Array, "*#b k"],
    mask: Bool[Array, "*#b k"],
    margin: float | Array,
    weight: float | Array,
) -> Float[Array, "*b"]:
    """Compute `D(u, i) + weight mean_j max(0, margin - D(u, j))`.

    The positive is pulled without end.

    The mean is over the negatives that count; those beyond the margin are not pushed. SimpleX's
    cosine contrastive loss (Mao et al., CIKM 2021, eq. 1), doubled and for any rows: where these
    lie on the unit sphere, `D = 2 - 2 cos`, and a margin of `2 - 2 m` here is its `m`.

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that grows with `p + k`.
    """
    counted = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    push = jnp.sum(jnp.where(mask, jax.nn.relu(margin - negatives), 0), axis=-1)
    return positive + weight * push / counted.astype(push.dtype)


@register("contrastive")
class Contrastive(Loss):
    """The distance of the positive, and the mean of what negatives lack to the margin.

    Attributes:
      margin: the squared distance from the user beyond which a negative is not pushed.
      negative_weight: what all negatives of a positive count together, where that counts 1.
    """

    margin: float = 0.5
    negative_weight: float = 100.0
    shares_negatives: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.margin >= 0, "margin", "the margin must not be negative")
        self.require(self.negative_weight >= 0, "negative_weight", "use 0 or more")

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        values, mask, _ = negatives
        return contrastive(positive, values, mask, self.margin, self.negative_weight)

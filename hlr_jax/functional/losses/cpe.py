"""CPE: gaps near the margin from either side (Bao et al., ACM MM 2019)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.functional.losses.loss import NegativeDistances
from hlr_jax.registry import register


def two_sided_hinge(
    positive: Float[Array, "*b"],
    negatives: Float[Array, "*b k"],
    mask: Bool[Array, "*b k"],
    margin: float | Array,
) -> Float[Array, "*b k"]:
    """Compute `|D(u, j) - D(u, i) - margin|` for each of K negatives; 0 where masked.

    Draws all gaps to the margin from either side, so that they vary little. CPE (Bao et al.,
    "Collaborative Preference Embedding against Sparse Labels", ACM MM 2019, eq. 10).
    """
    return jnp.where(mask, jnp.abs(negatives - positive[..., None] - margin), 0)


@register("cpe")
class CPE(Hinge):
    """The sum over negatives of how far each gap is from the margin."""

    def hinges(
        self, positive: Float[Array, "*b"], negatives: NegativeDistances
    ) -> Float[Array, "*b k"]:
        return two_sided_hinge(positive, negatives.values, negatives.mask, self.margin)

"""Hinge losses: the positive should be closer than negatives by a margin."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.registry import register


def triplet_hinge(
    positive: Float[Array, "*b"],
    negatives: Float[Array, "*b k"],
    mask: Bool[Array, "*b k"],
    margin: float | Array,
) -> Float[Array, "*b k"]:
    """Compute `max(0, D(u, i) - D(u, j) + margin)` for each of K negatives; 0 where masked.

    CML (Hsieh et al. 2017, eq. 2), LRML (Tay et al. 2018, eq. 6).
    """
    return jnp.where(mask, jax.nn.relu(positive[..., None] - negatives + margin), 0)


def hardest_hinge(hinge: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """Take the hinge of the closest of K negatives, the largest (CML, Hsieh et al. 2017)."""
    return jnp.max(hinge, axis=-1)


def rank_weight(
    hinge: Float[Array, "*b k"], num_items: int, counted: Int[Array, "*b"]
) -> Float[Array, "*b"]:
    """Estimate WARP's weight `log(1 + rank)` with `rank = floor(I * impostors / K)`.

    An impostor is a negative inside the margin, that is with a hinge above 0. The weight multiplies
    the hinge of the *closest* negative, and is a constant in the gradient. CML (Hsieh et al. 2017,
    section 3.1).

    Args:
      num_items: `I`, the size of the catalogue.
      counted: `K`, how many of the negatives count, below 2^20.
    """
    counted = jnp.maximum(counted, 1)
    impostors = jnp.sum(hinge > 0, axis=-1, dtype=jnp.int32)
    # floor(I * n / K), with n in two digits to the base 1024, so that nothing passes 2^31.
    whole, rest = jnp.divmod(num_items, counted)
    high, low = jnp.divmod(impostors, 1024)
    upper = rest * high
    lower = (upper % counted * 1024 + rest * low) // counted
    rank = whole * impostors + upper // counted * 1024 + lower
    return jnp.log1p(rank.astype(hinge.dtype))


@register("hinge")
class Hinge(Loss):
    """The sum of the hinges of all negatives (the papers).

    Attributes:
      margin: by how much farther a negative should be than the positive.
    """

    margin: float = 0.5

    def check(self) -> None:
        self.require(self.margin >= 0, "margin", "the margin must not be negative")

    def hinges(
        self, positive: Float[Array, "*b"], negatives: NegativeDistances
    ) -> Float[Array, "*b k"]:
        """Compute the hinge of each negative."""
        return triplet_hinge(positive, negatives.values, negatives.mask, self.margin)

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return jnp.sum(self.hinges(positive, negatives), axis=-1)

    def num_terms(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return jnp.sum(negatives.mask, axis=-1, dtype=positive.dtype)


@register("hardest")
class Hardest(Hinge):
    """The hinge of the closest negative alone."""

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return hardest_hinge(self.hinges(positive, negatives))

    def num_terms(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return jnp.ones_like(positive)


@register("warp")
class Warp(Hardest):
    """The hinge of the closest negative, times `log(1 + rank)` of the positive (CML, eq. 5).

    The rank is estimated from how many negatives lie inside the margin, so it wants several.
    """

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        hinge = self.hinges(positive, negatives)
        counted = jnp.sum(negatives.mask, axis=-1, dtype=jnp.int32)
        weight = rank_weight(hinge, negatives.num_items, counted)
        return weight * hardest_hinge(hinge)

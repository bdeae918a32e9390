"""PSL: the softmax with exponentials that bend, so that no single negative outweighs the others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.registry import register

ACTIVATIONS = ("tanh", "atan", "relu")


def log_activation(gap: Float[Array, "*b"], activation: str) -> Float[Array, "*b"]:
    """Compute `log sigma(gap)`, `-inf` where `sigma` is not above 0.

    `sigma` is 1 at 0 with a slope of 1, as the exponential, and below that elsewhere: `tanh` is
    `tanh(x) + 1`, `atan` is `arctan(x) + 1` and `relu` is `max(0, x + 1)`. PSL (Yang et al.,
    NeurIPS 2024, section 4.1).
    """
    if activation == "tanh":
        return jnp.log(2.0).astype(gap.dtype) + jax.nn.log_sigmoid(2 * gap)
    bent = 1 + (jnp.arctan(gap) if activation == "atan" else gap)
    # So that what is not a number stays so.
    is_zero = bent <= 0
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, bent)))


def pairwise_softmax(
    gaps: Float[Array, "*b k"],
    mask: Bool[Array, "*b k"],
    activation: str,
    temperature: float | Array,
    scale: float | Array,
) -> Float[Array, "*b"]:
    """Compute `log(1 + sum_j sigma(g_j / scale)^(scale / temperature))`; 0 without a negative.

    With `sigma = exp` this is the softmax of the same temperature, whatever the scale; and so it is
    for the other activations in the limit of a large scale. PSL (Yang et al., "PSL: Rethinking and
    Improving Softmax Loss from Pairwise Perspective for Recommendation", NeurIPS 2024), whose
    scores are half cosines `f`: on the unit sphere `D(u, i) - D(u, j) = 4 (f_j - f_i)`, so that a
    scale of 4 and a temperature of `4 tau` here are theirs. The 1 stands for the positive itself,
    as in their sum over all items, of which other positives of the user are left out.

    Args:
      gaps: `D(u, i) - D(u, j)`, above 0 where the negative is closer.
    """
    logits = scale / temperature * log_activation(gaps / scale, activation)
    logits = jnp.where(mask, logits, -jnp.inf)
    most = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, axis=-1), 0))
    total = jnp.exp(-most) + jnp.sum(jnp.exp(logits - most[..., None]), axis=-1)
    return most + jnp.log(total)


@register("psl")
class PSL(Loss):
    """The softmax loss by a surrogate of the exponential, for each pair of positive and negative.

    It has no form that shares negatives: time grows with positives times negatives.

    Attributes:
      activation: tanh, atan or relu.
      temperature: that of the softmax with the same slope at a gap of 0.
      scale: of the gaps; 4 for rows in a ball or on a sphere of radius 1, whose squared distances
        are at most that.
    """

    activation: str = "tanh"
    temperature: float = 0.5
    scale: float = 4.0

    def check(self) -> None:
        self.require(
            self.activation in ACTIVATIONS, "activation", f"use one of {', '.join(ACTIVATIONS)}"
        )
        self.require(self.temperature > 0, "temperature", "use more than 0")
        # Otherwise the slope of relu's power is infinite where it begins.
        self.require(self.scale >= self.temperature, "scale", "use the temperature or more")

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        gaps = positive[..., None] - negatives.values
        return pairwise_softmax(gaps, negatives.mask, self.activation, self.temperature, self.scale)

"""Softmax losses: the positive against all negatives at once."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.registry import register


def sampled_softmax(
    positive: Float[Array, "*#b"],
    negatives: Float[Array, "*#b k"],
    mask: Bool[Array, "*#b k"],
    temperature: float | Array,
) -> Float[Array, "*b"]:
    """Compute `-log p(positive)`, `p ~ exp(-D / temperature)` over it and its negatives.

    With all other items as negatives this is the multinomial likelihood of the positive (Liang
    et al., WWW 2018, eq. 2), with squared distances in place of scores; with some, its sampled
    form without correction for how they were drawn (Wu et al., TOIS 2024, "On the Effectiveness
    of Sampled Softmax Loss for Item Recommendation"). Without a negative that counts the loss is 0.

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that grows with `p + k`.
    """
    # Weights of masked negatives are 0 by their logits, which takes no second array of weights;
    # and positives are not put beside negatives, which would copy a whole catalogue for each row.
    negatives = jnp.where(mask, negatives, jnp.inf)
    nearest = jax.lax.stop_gradient(jnp.min(negatives, axis=-1))
    nearest = jnp.where(nearest == jnp.inf, 0, nearest)
    others = jnp.sum(jnp.exp((nearest[..., None] - negatives) / temperature), axis=-1)
    has_none = others == 0
    log_others = jnp.where(has_none, -jnp.inf, jnp.log(jnp.where(has_none, 1, others)))
    return jax.nn.softplus((positive - nearest) / temperature + log_others)


@register("softmax")
class Softmax(Loss):
    """`-log p` of the positive among its negatives.

    Attributes:
      temperature: `p ~ exp(-squared distance / temperature)`.
    """

    temperature: float = 0.5
    shares_negatives: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.temperature > 0, "temperature", "use more than 0")

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        return sampled_softmax(positive, negatives.values, negatives.mask, self.temperature)

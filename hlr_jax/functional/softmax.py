"""The positive against all negatives at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sampled_softmax(
    positive: Float[Array, "*b"], negatives: Float[Array, "*b k"], temperature: float
) -> Float[Array, "*b"]:
    """`-log p(positive)` where `p ~ exp(-D / temperature)` over the positive and K negatives.

    With all other items as negatives this is the multinomial likelihood of the positive (Liang
    et al., WWW 2018, eq. 2), with squared distances in place of scores; with some, its sampled
    form without correction for how they were drawn (Wu et al., TOIS 2024, "On the Effectiveness
    of Sampled Softmax Loss for Item Recommendation"). A negative that is infinitely far away
    does not count.
    """
    logits = -jnp.concatenate([positive[..., None], negatives], axis=-1) / temperature
    return jax.nn.logsumexp(logits, axis=-1) - logits[..., 0]

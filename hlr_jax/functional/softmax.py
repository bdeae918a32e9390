"""The positive against all negatives at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sampled_softmax(
    positive: Float[Array, "*#b"], negatives: Float[Array, "*#b k"], temperature: float
) -> Float[Array, "*b"]:
    """`-log p(positive)` where `p ~ exp(-D / temperature)` over the positive and K negatives.

    With all other items as negatives this is the multinomial likelihood of the positive (Liang
    et al., WWW 2018, eq. 2), with squared distances in place of scores; with some, its sampled
    form without correction for how they were drawn (Wu et al., TOIS 2024, "On the Effectiveness
    of Sampled Softmax Loss for Item Recommendation"). A negative that is infinitely far away
    does not count; without any the loss is 0.

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that goes by `p + k`.
    """
    # Not put side by side, which would copy what may be a whole catalogue for each row.
    nearest = jax.lax.stop_gradient(jnp.min(negatives, axis=-1))
    nearest = jnp.where(nearest == jnp.inf, 0, nearest)
    others = jnp.sum(jnp.exp((nearest[..., None] - negatives) / temperature), axis=-1)
    has_none = others == 0
    log_others = jnp.where(has_none, -jnp.inf, jnp.log(jnp.where(has_none, 1, others)))
    return jax.nn.softplus((positive - nearest) / temperature + log_others)

"""Move the user to what it took last: ours, from no paper."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import Attention
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History


def recency_weights(history: History, log_decay: float | Array) -> Float[Array, "*b p"]:
    """Weigh the items of a history by `exp(k log_decay)`, from k = 0 on; masked places by 0.

    By the logarithm, so that the gradient is finite however small the decay.
    """
    counted = history.mask.astype(history.rows.dtype)
    # Places that do not count may stand before the first that does.
    place = jnp.maximum(jnp.cumsum(counted, axis=-1) - 1, 0)
    return counted * jnp.exp(place * log_decay)


def recent_items_relation(
    history: History, weight: float | Array = 1.0, log_decay: float | Array = -0.36
) -> Float[Array, "*b d"]:
    """`r = weight * sum_k exp(log_decay)^k p_k`, where `p_0` is the last item before the target.

    Fossil (He & McAuley, ICDM 2016) adds a weighted sum of the last items too, with weights of
    their own for each place and user, and takes inner products. PRME (Feng et al., IJCAI 2015)
    measures the distance to the last item in a second space; TransRec (He et al., RecSys 2017)
    translates the last item by the user. The sum of an empty history is zero.
    """
    weights = recency_weights(history, log_decay)
    return weight * jnp.einsum("...p,...pd->...d", weights, history.rows)


@register("recent_items")
class RecentItems(Relation):
    """The user goes towards its last items, the more the later they are; both are learned.

    The sum is not brought back into a ball. On the sphere only its direction counts.

    Attributes:
      start_weight: of the last item beside the user's row, before the first step.
      start_decay: of the weight from one item to the one before, before the first step; it is kept
        between 0 and 1.
    """

    start_weight: float = 0.5
    start_decay: float = 0.7

    uses_history: ClassVar[bool] = True
    reads_order: ClassVar[bool] = True
    reads_item: ClassVar[bool] = False

    def check(self) -> None:
        self.require(self.start_weight >= 0, "start_weight", "use 0 or more")
        self.require(0 < self.start_decay < 1, "start_decay", "use a factor between 0 and 1")

    def setup(self) -> None:
        def learned(name: str, start: float | Array) -> Float[Array, ""]:
            return self.param(name, nn.initializers.constant(start), (), jnp.float32)

        self.weight = learned("weight", self.start_weight)
        logit = learned("logit", jax.scipy.special.logit(self.start_decay))
        self.log_decay = jax.nn.log_sigmoid(logit)

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        relation = recent_items_relation(history, self.weight, self.log_decay)
        return jnp.broadcast_to(relation, jnp.broadcast_shapes(relation.shape, item.shape))

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        weights = recency_weights(history, self.log_decay)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        return {"history": Attention(weights / jnp.where(total > 0, total, 1), history.mask)}

"""A user is where its items are, and has no row of its own: ours, from no paper."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.models.history_mean import history_mean
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History


def items_only_relation(history: History, weight: float | Array = 1.0) -> Float[Array, "*b d"]:
    """`r = weight * mean_k p_k`, from the origin, where a user without a row stands.

    NSVD (Paterek, KDD Cup 2007) and FISM (Kabbur et al., KDD 2013) represent users so, by second
    rows of their items and inner products. The mean of an empty history is zero.
    """
    return weight * history_mean(history)


@register("items_only")
class ItemsOnly(Relation):
    """The weighted mean of a user's items, whatever the target: one table, of items.

    Users that were not trained on are ranked for like all others, once they have a history. The
    sum is not brought back into a ball, which the learned weight would only work against; on the
    sphere its length does not count, nor therefore the weight.

    Attributes:
      start_weight: of the mean before the first step; it is learned.
    """

    start_weight: float = 1.0

    uses_history: ClassVar[bool] = True
    reads_item: ClassVar[bool] = False

    def check(self) -> None:
        self.require(self.start_weight > 0, "start_weight", "use a weight above 0")

    @property
    def user_width(self) -> int:
        """Users have no rows."""
        return 0

    def setup(self) -> None:
        start = nn.initializers.constant(self.start_weight)
        self.weight = self.param("weight", start, (), jnp.float32)

    def __call__(
        self, user: Float[Array, "*#b 0"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        relation = items_only_relation(history, self.weight)
        return jnp.broadcast_to(relation, jnp.broadcast_shapes(relation.shape, item.shape))

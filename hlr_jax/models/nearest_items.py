"""Move the user to those of its items that are nearest to the target: ours, from no paper."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional import Attention, attention_weights, pooling_change
from hlr_jax.models.history_pooling import history_weights, pooled_distances, pooled_scores
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def nearest_items_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    history: History,
    weight: float | Array = 1.0,
    temperature: float | Array = 1.0,
) -> Float[Array, "*b d"]:
    """`r = weight * sum_k a_k (p_k - u)`, where `a = softmax_k(item . p_k / temperature)`.

    So the user goes that part of the way to its items nearest to the target, and stays in the ball
    for weights from 0 to 1. AdaCML (Zhang et al., DASFAA 2019) adds
    `sum_k a_k p_k` instead, at temperature 1. On the sphere inner products are in the order of
    distances. An empty history gives a zero relation.
    """
    weights, _ = history_weights(item / temperature, history)
    nearest = jnp.einsum("...p,...pd->...d", weights, history.rows)
    return weight * (nearest - jnp.sum(weights, axis=-1, keepdims=True) * user)


@register("nearest_items")
class NearestItems(Relation):
    """The user goes a learned part of the way to its items that are nearest to the target.

    Attributes:
      start_weight: the part before the first step, between 0 and 1; it is learned, and stays there
        by a sigmoid. Left free it turns negative: a positive is not in its own history, so that
        away from the history is towards positives, in training only.
      start_temperature: of the softmax over the history, before the first step; learned as its
        logarithm, so that it stays positive.
    """

    start_weight: float = 0.5
    start_temperature: float = 0.25

    uses_history: ClassVar[bool] = True

    def check(self) -> None:
        self.require(0 < self.start_weight < 1, "start_weight", "use a weight between 0 and 1")
        self.require(self.start_temperature > 0, "start_temperature", "use a temperature above 0")

    def setup(self) -> None:
        def learned(name: str, start: float | Array) -> Float[Array, ""]:
            return self.param(name, nn.initializers.constant(start), (), jnp.float32)

        self.weight = jax.nn.sigmoid(learned("logit", jax.scipy.special.logit(self.start_weight)))
        self.temperature = jnp.exp(learned("log_temperature", jnp.log(self.start_temperature)))

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return nearest_items_relation(user, item, history, self.weight, self.temperature)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        return {"history": history_weights(item / self.temperature, history)}

    def euclidean_pairwise(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Measure by attention weights, without relations."""
        return pooled_distances(self._change, users, items, history)

    def euclidean_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by attention weights, which are the relation's coordinates in the history."""
        return pooled_scores(self._change, users, tile, catalogue, histories)

    def _change(
        self,
        items: Float[Array, "t d"],
        user: Float[Array, " d"],
        rows: Float[Array, "p d"],
        mask: Bool[Array, " p"],
    ) -> Float[Array, " t"]:
        """Compute by how much the relation changes a user's squared distance to each item.

        Seen from the user: `item . (p_k - u)` gives the same softmax.
        """
        steps = rows - user[None]
        weights = attention_weights(items @ steps.T / self.temperature, mask[None])
        return pooling_change(user, items, steps, self.weight * weights)

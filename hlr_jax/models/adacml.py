"""AdaCML: the user adapts to the item (Zhang et al., DASFAA 2019)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional import Attention, attention_weights, pooling_change
from hlr_jax.models.history_pooling import history_weights, pooled_distances, pooled_scores
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def adacml_relation(
    item: Float[Array, "*#b d"], history: History, beta: float = 1.0
) -> Float[Array, "*b d"]:
    """Average the rows of a history, `r = sum_k a_k p_k`, by attention `w_k = item . p_k`.

    `a` is from `attention_weights` (Zhang et al., DASFAA 2019). An empty history gives a zero
    relation.
    """
    weights, _ = history_weights(item, history, beta)
    return jnp.einsum("...p,...pd->...d", weights, history.rows)


@register("adacml")
class AdaCML(Relation):
    """The user moves towards those of its items that are like the target.

    Attributes:
      beta: smoothing of the attention over the history; 1 is a softmax.
    """

    beta: float = 1.0

    static: ClassVar[tuple[str, ...]] = ("beta",)
    uses_history: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.beta >= 0, "beta", "use 0 or more; 1 is a softmax")

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        relation = adacml_relation(item, history, self.beta)
        return jnp.broadcast_to(relation, jnp.broadcast_shapes(user.shape, relation.shape))

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        return {"history": history_weights(item, history, self.beta)}

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
        """Compute by how much the relation changes a user's squared distance to each item."""
        weights = attention_weights(items @ rows.T, mask[None], self.beta)
        return pooling_change(user, items, rows, weights)

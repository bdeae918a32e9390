"""SL@K: the softmax loss of those positives that may come among the first K."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.functional.losses.loss import Loss, NegativeDistances
from hlr_jax.functional.losses.softmax import sampled_softmax
from hlr_jax.registry import register


def distance_at_rank(
    negatives: Float[Array, "*b k"], mask: Bool[Array, "*b k"], rank: int
) -> Float[Array, "*b"]:
    """Find the distance of the `rank`-th closest negative that counts; `inf` where fewer do."""
    closest, _ = jax.lax.top_k(jnp.where(mask, -negatives, -jnp.inf), rank)
    return -closest[..., -1]


def rank_in_sample(cutoff: int, num_negatives: int, num_items: int) -> int:
    """Convert a rank among all items to one among some of them, drawn uniformly.

    That is, in expectation and at least 1; the same rank if they are all items.
    """
    share = min(1.0, num_negatives / num_items)
    return min(num_negatives, max(1, round(cutoff * share)))


@register("softmax_at_k")
class SoftmaxAtK(Loss):
    """The softmax loss, times how far the positive is among the first K of its user.

    The weight is `sigmoid((beta - D(u, i)) / weight_temperature)`, with `beta` the distance of the
    K-th closest item. SL@K (Yang et al., "Breaking the Top-K Barrier:
    Advancing Top-K Ranking Metrics Optimization in Recommender Systems", KDD 2025), a smooth bound
    of NDCG@K.

    The weight is a constant in the gradient, and not `beta` alone: a loss that may lower its own
    weights sends positives away, where distances are not bounded as the paper's cosines are.

    Here the K-th closest is of the negatives: a positive is among the first K, as evaluation
    ranks it, if it is closer than that, and a user's other positives do not fill the K places up.
    With all items as negatives this is exact; a sample is taken to be uniform, and its quantile
    stands for that of the catalogue; of fewer than `num_items / cutoff` it is the closest.

    Attributes:
      cutoff: `K`.
      temperature: of the softmax.
      weight_temperature: of the weight; a large one weighs all positives alike, by 1/2.
    """

    cutoff: int = 10
    temperature: float = 0.5
    weight_temperature: float = 0.5
    shares_negatives: ClassVar[bool] = True
    holds_constant: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.cutoff >= 1, "cutoff", "use 1 or more")
        self.require(self.temperature > 0, "temperature", "use more than 0")
        self.require(self.weight_temperature > 0, "weight_temperature", "use more than 0")

    def __call__(
        self, positive: Float[Array, "*#b"], negatives: NegativeDistances
    ) -> Float[Array, "*b"]:
        values, mask, num_items = negatives
        rank = rank_in_sample(self.cutoff, values.shape[-1], num_items)
        last = distance_at_rank(values, mask, rank)
        weight = jax.nn.sigmoid((last - positive) / self.weight_temperature)
        return jax.lax.stop_gradient(weight) * sampled_softmax(
            positive, values, mask, self.temperature
        )

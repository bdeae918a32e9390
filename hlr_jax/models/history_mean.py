"""CML with the mean of a user's items added to its row: ours, from no paper."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import project_on_ball
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History


def history_mean(history: History) -> Float[Array, "*b d"]:
    """Average the rows of each history; that of an empty one is zero."""
    counted = history.mask.astype(history.rows.dtype)
    total = jnp.einsum("...p,...pd->...d", counted, history.rows)
    return total / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1)


def history_mean_relation(
    user: Float[Array, "*#b d"],
    history: History,
    weight: float | Array = 1.0,
    radius: float | Array = 1.0,
) -> Float[Array, "*b d"]:
    """`r = project(u + weight * mean_k p_k) - u`, on the ball of that radius.

    After SimpleX (Mao et al., CIKM 2021), which weighs the two, puts a matrix before the mean and
    takes cosines, and SVD++ (Koren, KDD 2008), which adds a scaled sum of second item rows and
    takes inner products. The ball is CML's (Hsieh et al. 2017, section 3.4). The mean of an empty
    history is zero.
    """
    return project_on_ball(user + weight * history_mean(history), radius) - user


@register("history_mean")
class HistoryMean(Relation):
    """Move the user by the mean of its items, whatever the target.

    Attributes:
      history_weight: of the mean beside the user's own row; 0 is CML, if the ball is no smaller
        than that of rows.
      clip_translated: radius of the ball that their sum is brought back into, as
        `config.geometry.radius` is that of rows.
    """

    history_weight: float = 1.0
    clip_translated: float = 1.0

    uses_history: ClassVar[bool] = True
    reads_item: ClassVar[bool] = False

    def check(self) -> None:
        self.require(self.history_weight >= 0, "history_weight", "use 0 or more")
        self.require(self.clip_translated > 0, "clip_translated", "use a radius above 0")

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        relation = history_mean_relation(user, history, self.history_weight, self.clip_translated)
        return jnp.broadcast_to(relation, jnp.broadcast_shapes(relation.shape, item.shape))

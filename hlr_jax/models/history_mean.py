"""CML with the mean of a user's items added to its row. Of no paper."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import project_on_ball
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.models.relation import Histories, History, Relation, register


def history_mean_relation(
    user: Float[Array, "*#b d"], history: History, weight: float = 1.0, radius: float = 1.0
) -> Float[Array, "*b d"]:
    """`r = project(u + weight * mean_k p_k) - u`, on the ball of that radius.

    After SimpleX (Mao et al., CIKM 2021), which weighs the two, puts a matrix before the mean and
    takes cosines, and SVD++ (Koren, KDD 2008), which adds a scaled sum of second item rows and
    takes inner products. The ball is CML's (Hsieh et al. 2017, section 3.4). The mean of an empty
    history is zero.
    """
    counted = history.mask.astype(history.rows.dtype)
    total = jnp.einsum("...p,...pd->...d", counted, history.rows)
    mean = total / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1)
    return project_on_ball(user + weight * mean, radius) - user


@register("history_mean")
class HistoryMean(Relation):
    """The user moves by the mean of its items, whatever the target.

    Attributes:
      history_weight: of the mean beside the user's own row; 0 is CML, if the ball is no smaller
        than that of rows.
      clip_translated: radius of the ball that their sum is brought back into, as
        `config.model.clip_norm` is that of rows.
    """

    history_weight: float = 1.0
    clip_translated: float = 1.0

    uses_history = True

    def __post_init__(self) -> None:
        if self.history_weight < 0:
            raise InputError(f"config.model.history_weight={self.history_weight}: use 0 or more")
        if self.clip_translated <= 0:
            raise InputError(
                f"config.model.clip_translated={self.clip_translated}: use a radius above 0"
            )
        super().__post_init__()

    def _relation(self, user: Float[Array, "*#b d"], history: History) -> Float[Array, "*b d"]:
        return history_mean_relation(user, history, self.history_weight, self.clip_translated)

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        assert history is not None
        relation = self._relation(user, history)
        return jnp.broadcast_to(relation, jnp.broadcast_shapes(relation.shape, item.shape))

    def distances_to_all(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History | None
    ) -> Float[Array, "u k"]:
        """One matrix product."""
        assert history is not None
        relation = self._relation(users, history)
        return -tiles.product_scores(users + relation, items)

    def scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: Histories | None,
    ) -> Float[Array, "u t"]:
        """One matrix product. XLA translates users once for all tiles, a few at a time."""
        assert histories is not None

        def translated(user: Array, ids: Array, mask: Bool[Array, " p"]) -> Array:
            history = History(catalogue[ids], mask)
            return user + self._relation(user, history)

        args = (users, histories.items, histories.mask)
        floats = histories.items.shape[1] * self.dim
        return tiles.product_scores(tiles.blockwise(translated, args, floats), tile)

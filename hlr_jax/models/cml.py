"""CML: no relation at all (Hsieh et al., Collaborative Metric Learning, WWW 2017)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.models.relation import Histories, History, Relation, register


@register("cml")
class CML(Relation):
    """`r = 0`: a user sits next to the items it likes."""

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        return jnp.zeros(jnp.broadcast_shapes(user.shape, item.shape), user.dtype)

    def distances_to_all(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History | None
    ) -> Float[Array, "u k"]:
        """One matrix product."""
        return -tiles.product_scores(users, items)

    def scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: Histories | None,
    ) -> Float[Array, "u t"]:
        """One matrix product."""
        return tiles.product_scores(users, tile)

"""CML: no relation at all (Hsieh et al., Collaborative Metric Learning, WWW 2017)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History


@register("cml")
class CML(Relation):
    """`r = 0`: a user is close to the items it likes."""

    reads_item: ClassVar[bool] = False
    has_relation: ClassVar[bool] = False

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return jnp.zeros(jnp.broadcast_shapes(user.shape, item.shape), user.dtype)

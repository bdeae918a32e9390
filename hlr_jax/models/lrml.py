"""LRML: a latent relation read from memory (Tay et al., WWW 2018)."""

from jaxtyping import Array, Float

from hlr_jax.functional import memory_attention, tiles
from hlr_jax.models.base import Histories, History, register
from hlr_jax.models.memory import MemoryRelation


def lrml_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
) -> Float[Array, "*b d"]:
    """`r = softmax((u * i) @ key) @ memory` (LRML, Tay et al. 2018, eqs. 1-4)."""
    return memory_attention(user, item, key) @ memory


@register("lrml")
class LRML(MemoryRelation):
    """The user-item pair addresses the memory."""

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        return lrml_relation(user, item, *self.shared)

    def scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: Histories | None,
    ) -> Float[Array, "u t"]:
        """By the slot weights alone, which are the relation's coordinates in the memory."""
        key, memory = self.shared

        def scores_of_tile(items: Float[Array, "s d"]) -> Float[Array, "u s"]:
            slots = tiles.slots_of_row(items, key)
            floats = self.slots * len(items)
            return tiles.relation_scores(slots, (users,), users, items, memory, floats)

        return tiles.tilewise(scores_of_tile, tile, tiles.sizes().items)

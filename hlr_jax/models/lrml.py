"""LRML: a latent relation read from memory (Tay et al., WWW 2018)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import (
    Attention,
    MemoryPairs,
    memory_attention,
    memory_pairs,
    pairwise_squared_distances,
)
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.kernels.relation_change import is_by_gpu
from hlr_jax.kernels.sizes import scoring_sizes
from hlr_jax.models.memory import Matrices, MemoryRelation, single_reference, slot_attention
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def lrml_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
) -> Float[Array, "*b d"]:
    """Read the relation `r = softmax((u * i) @ key) @ memory` (LRML, Tay et al. 2018, eqs. 1-4)."""
    return memory_attention(user, item, key) @ memory


@register("lrml")
class LRML(MemoryRelation):
    """The user-item pair addresses the memory."""

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return lrml_relation(user, item, *self.shared)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        return {"slots": slot_attention(single_reference(user, item, *self.shared))}

    def slot_weights(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Float[Array, "*b m"]]:
        return {"memory": memory_attention(user, item, self.shared[0])}

    def euclidean_pairwise(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Measure by slot weights `[u, M, k]`, without relations."""
        return self.distances_by_slots(users, items, self.shared)

    def distances_by_slots(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], matrices: Matrices
    ) -> Float[Array, "u k"]:
        """Measure through this key and memory."""
        key, memory = matrices
        pairs = _pairs(users, items, matrices)
        if is_by_gpu(pairs, self.implementation):
            return self.distances_of_pairs(users, items, pairs)
        logits = (users[:, None] * key.T[None]) @ items.T  # [u, M, k]
        slots = jax.nn.softmax(logits, axis=1)
        change = jax.vmap(tiles.change_of_distance(items, memory))(users @ memory.T, slots)
        return change + pairwise_squared_distances(users, items)

    def euclidean_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by slot weights alone, which are the relation's coordinates in the memory."""
        return self.scores_by_slots(users, tile, self.shared)

    def scores_by_slots(
        self, users: Float[Array, "u d"], tile: Float[Array, "t d"], matrices: Matrices
    ) -> Float[Array, "u t"]:
        """Score through this key and memory, some items at a time."""
        key, memory = matrices
        if is_by_gpu(_pairs(users, tile, matrices), self.implementation):
            return -self.distances_by_slots(users, tile, matrices)

        def scores_of_tile(items: Float[Array, "s d"]) -> Float[Array, "u s"]:
            slots = tiles.slots_of_row(items, key)
            floats = self.slots * len(items)
            return tiles.relation_scores(slots, (users,), users, items, memory, floats)

        return tiles.tilewise(scores_of_tile, tile, scoring_sizes().items)


def _pairs(
    users: Float[Array, "u d"], items: Float[Array, "k d"], matrices: Matrices
) -> MemoryPairs:
    """The user's own row is all that an item refers to."""
    mask = jnp.ones((len(users), 1), bool)
    return memory_pairs(users, items, users[:, None], mask, *matrices)

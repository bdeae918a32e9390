"""HLR: relations in two levels (Tran et al., RecSys 2021)."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.functional import (
    Attention,
    MemoryPairs,
    References,
    attend,
    memory_pairs,
    pooled_slots,
    reference_attention,
)
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.kernels.known_slots import KnownSlots, distances_by_known_slots
from hlr_jax.kernels.relation_change import is_by_gpu
from hlr_jax.kernels.sizes import table_tile
from hlr_jax.models.memory import (
    HistoryRelation,
    needed_rows,
    single_reference,
    slot_attention,
)
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def hlr_relation(
    user: Float[Array, "*#b d"], groups: Sequence[References], beta: float = 1.0
) -> Float[Array, "*b d"]:
    """Pool the item's relations to its references, weighed by the user.

    `r_k = softmax((item * p_k) @ key) @ memory` for each history row, with attention
    `w_k = user . r_k` (Tran et al. 2021, sections 3.2 and 3.3). The published code has the user
    itself as a reference too, which is a group of its own (`single_reference`).

    Args:
      groups: references of the item, each group with its memory.
    """
    return attend(user, groups, beta)


@register("hlr")
class HLR(HistoryRelation):
    """Item-item relations over the history, and the user-item relation, weighed by the user.

    Attributes:
      include_user: the user vector is a reference too (the published code).
      separate_user_memory: that reference reads a key and memory of its own.
    """

    include_user: bool = True
    separate_user_memory: bool = False

    def setup(self) -> None:
        super().setup()
        self.own = self.matrices("user_") if self.separate_user_memory else self.shared

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        return hlr_relation(user, self._groups(user, item, references), self.beta)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        references = self.references(user, item, history)
        groups = self._groups(user, item, references)
        found = {
            "slots": slot_attention(references),
            "history": reference_attention(user, groups, self.beta),
        }
        if self._reads_two_memories:
            found["user_slots"] = slot_attention(groups[0])
        return found

    def slot_weights(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Float[Array, "*b m"]]:
        groups = self._groups(user, item, self.references(user, item, history))
        names = ("user_memory", "memory") if self._reads_two_memories else ("memory",)
        return dict(zip(names, pooled_slots(user, groups, self.beta), strict=True))

    def memories(self) -> dict[str, Float[Array, "m d"]]:
        found = super().memories()
        return found | {"user_memory": self.own[1]} if self._reads_two_memories else found

    def _groups(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], references: References
    ) -> list[References]:
        if self._reads_two_memories:
            return [single_reference(user, item, *self.own), references]
        return [references]

    def rows_before(self, user: Float[Array, "*b d"]) -> History:
        """Refer to the user's row as to one more of the history, if it reads the same memory."""
        if not self.include_user or self.separate_user_memory:
            return History.empty(user)
        return History(user[..., None, :], jnp.ones((*user.shape[:-1], 1), bool))

    def euclidean_pairwise(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Measure by pooled slot weights, a tile of items at a time."""
        if self._reads_two_memories:
            return self.general_pairwise(users, items, history)
        pairs = self._pairs(users, items, history)
        return self.distances_of_pairs(users, items, pairs, self.beta)

    def known_of_items(self, items: Float[Array, "k d"], history: HistoryIds) -> Any:
        if self._reads_two_memories:
            return history
        return self.known_slots(items, history)

    def known_distances(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], known: Any
    ) -> Float[Array, "u k"]:
        if not isinstance(known, KnownSlots):
            return super().known_distances(users, items, known)
        return distances_by_known_slots(users, items, known, self.beta, has_own=self.include_user)

    @property
    def _reads_two_memories(self) -> bool:
        return self.include_user and self.separate_user_memory

    def _pairs(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> MemoryPairs:
        return memory_pairs(users, items, *self.rows_before(users).joined(history), *self.shared)

    def euclidean_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by pooled slot weights, which are the relation's coordinates in the memory."""
        history = History(catalogue[histories.items], histories.mask)
        is_by_programs = is_by_gpu(self._pairs(users, tile, history), self.implementation)
        if is_by_programs and not self._reads_two_memories:
            return -self.euclidean_pairwise(users, tile, history)
        (key, memory), (own_key, own_memory) = self.shared, self.own
        rows, places = needed_rows(catalogue, histories)
        args: tuple[Array, ...] = (users @ memory.T, places, histories.mask)
        if self._reads_two_memories:
            memory = jnp.concatenate([own_memory, memory])

        def scores_of_tile(items: Float[Array, "s d"]) -> Float[Array, "u s"]:
            slots = tiles.tile_memory_attention(rows, items, key)

            def coordinates(
                memory_query: Float[Array, " m"],
                place: Int[Array, " p"],
                mask: Bool[Array, " p"],
                *of_user: Array,
            ) -> Float[Array, "n s"]:
                found = slots.at[place].get(mode="promise_in_bounds")
                logits, masks = [tiles.tile_logits(found, memory_query)], [mask]
                if of_user:
                    own_query, own = of_user
                    logits.insert(0, tiles.tile_logits(own[None], own_query))
                    masks.insert(0, jnp.ones(1, bool))
                *own_weight, weights = tiles.tile_attention_weights(logits, masks, self.beta)
                parts = [weight * own for weight in own_weight]
                parts.append(tiles.tile_pool(weights, found))
                if self.separate_user_memory:
                    return jnp.concatenate(parts)
                return functools.reduce(jnp.add, parts)

            of_users: tuple[Array, ...] = ()
            if self.include_user:
                own = tiles.tile_memory_attention(users, items, own_key)
                of_users = (users @ own_memory.T, own)
            floats = slots[0].size * places.shape[1]
            return tiles.relation_scores(
                coordinates, (*args, *of_users), users, items, memory, floats
            )

        return tiles.tilewise(scores_of_tile, tile, table_tile(len(rows), self.slots))

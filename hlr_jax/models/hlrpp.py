"""HLR++: a second relation from the user's side (Tran et al., RecSys 2021)."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.functional import (
    Attention,
    References,
    TwoSidedPairs,
    attend,
    memory_attention,
    memory_pairs,
    pooled_slots,
    reference_attention,
)
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.kernels.known_slots import KnownSlots, distances_by_known_slots
from hlr_jax.kernels.relation_change import is_by_gpu
from hlr_jax.kernels.sizes import table_tile
from hlr_jax.models.hlr import hlr_relation
from hlr_jax.models.memory import (
    HistoryRelation,
    Matrices,
    history_references,
    needed_rows,
    single_reference,
    slot_attention,
)
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def hlrpp_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    history: History,
    references: References,
    matrices: Matrices,
    beta: float = 1.0,
) -> Float[Array, "*b d"]:
    """Add up two relations that share key and memory.

    The first is HLR's without the user as reference: the item is the target, the user the query
    of the attention. In the second the user is the target, the item and the history are the
    references, and the item is the query.

    Args:
      references: the history as references of the item.
      matrices: key and memory.
    """
    of_user = references_of_user(user, item, history, matrices)
    return hlr_relation(user, [references], beta) + attend(item, of_user, beta)


def references_of_user(
    user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History, matrices: Matrices
) -> list[References]:
    """Compute the references of the user as a target: the item, and the history."""
    return [
        single_reference(user, item, *matrices),
        history_references(user, *history, *matrices),
    ]


@register("hlrpp")
class HLRPlusPlus(HistoryRelation):
    """HLR's history relation plus its mirror image (JUPITER in the published code)."""

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        return hlrpp_relation(user, item, history, references, self.shared, self.beta)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        references = self.references(user, item, history)
        of_user = references_of_user(user, item, history, self.shared)
        return {
            "slots": slot_attention(references),
            "history": reference_attention(user, [references], self.beta),
            "pair_slots": slot_attention(of_user[0]),
            "user_slots": slot_attention(of_user[1]),
            "user_history": reference_attention(item, of_user, self.beta),
        }

    def slot_weights(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Float[Array, "*b m"]]:
        """Add up those of both relations, which read the same memory."""
        references = self.references(user, item, history)
        of_user = references_of_user(user, item, history, self.shared)
        pooled = pooled_slots(user, [references], self.beta)
        pooled += pooled_slots(item, of_user, self.beta)
        return {"memory": functools.reduce(jnp.add, pooled)}

    def euclidean_pairwise(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Measure by pooled slot weights, a tile of items at a time."""
        pairs = self._pairs(users, items, history)
        return self.distances_of_pairs(users, items, pairs, self.beta)

    def known_of_items(self, items: Float[Array, "k d"], history: HistoryIds) -> Any:
        return self.known_slots(items, history)

    def known_distances(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], known: Any
    ) -> Float[Array, "u k"]:
        if not isinstance(known, KnownSlots):
            return super().known_distances(users, items, known)
        return distances_by_known_slots(users, items, known, self.beta, is_two_sided=True)

    def _pairs(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> TwoSidedPairs:
        return TwoSidedPairs(memory_pairs(users, items, *history, *self.shared), users)

    def euclidean_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by the references' pooled slot weights; both relations read the same memory."""
        history = History(catalogue[histories.items], histories.mask)
        if is_by_gpu(self._pairs(users, tile, history), self.implementation):
            return -self.euclidean_pairwise(users, tile, history)
        key, memory = self.shared
        rows, places = needed_rows(catalogue, histories)
        user_query = users @ memory.T
        # The user's slot weights with its history are the same for all items.
        of_user = memory_attention(users[:, None], catalogue[histories.items], key)

        def scores_of_tile(items: Float[Array, "s d"]) -> Float[Array, "u s"]:
            slots = tiles.tile_memory_attention(rows, items, key)
            item_query = memory @ items.T

            def coordinates(
                memory_query: Float[Array, " m"],
                place: Int[Array, " p"],
                mask: Bool[Array, " p"],
                own: Float[Array, "m s"],
                of_user: Float[Array, "p m"],
            ) -> Float[Array, "m s"]:
                found = slots.at[place].get(mode="promise_in_bounds")
                item_logits = tiles.tile_logits(found, memory_query)
                (weights,) = tiles.tile_attention_weights([item_logits], [mask], self.beta)
                of_item = tiles.tile_pool(weights, found)

                user_logits = [
                    jnp.sum(own * item_query, axis=0, keepdims=True),
                    of_user @ item_query,
                ]
                masks = [jnp.ones(1, bool), mask]
                own_weight, weights = tiles.tile_attention_weights(user_logits, masks, self.beta)
                return of_item + own_weight * own + of_user.T @ weights

            own = tiles.tile_memory_attention(users, items, key)
            return tiles.relation_scores(
                coordinates,
                (user_query, places, histories.mask, own, of_user),
                users,
                items,
                memory,
                slots[0].size * places.shape[1],
            )

        return tiles.tilewise(scores_of_tile, tile, table_tile(len(rows), self.slots))

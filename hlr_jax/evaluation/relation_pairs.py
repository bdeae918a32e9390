"""Measure the relations of pairs, and how much of each slot of a memory is in them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.kernels.sizes import pair_tile
from hlr_jax.models.relation import Relation, apply
from hlr_jax.sampling.histories import HistoryDraw, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import History, Params


class PairRelations(NamedTuple):
    """Relations of `N` pairs.

    Attributes:
      relations: of each pair.
      slots: by name of the memory, how much of each of its slots is in them; see
        `Relation.slot_weights`.
    """

    relations: Float32[np.ndarray, "n d"]
    slots: dict[str, Float32[np.ndarray, "n _"]]


def relations_of_pairs(
    ranker: Ranker,
    history: Interactions,
    users: Int[np.ndarray, "n"],
    items: Int[np.ndarray, "n"],
) -> PairRelations:
    """Measure pairs, some at a time, with histories drawn as for ranking.

    Args:
      ranker: whose tables are replicated.
      history: what the relation reads of users; a pair's own item is left out of it.
      users, items: rows of the tables, of at least one pair.
    """
    params = ranker.replicated_points(history)
    read = DeviceInteractions.of(history)
    size = min(len(users), pair_tile((1 + ranker.draw.length) * ranker.model.dim))
    parts = []
    with jax.default_matmul_precision("highest"):
        for first in range(0, len(users), size):
            # The last tile is filled up, so that one program serves all.
            tile = (
                np.resize(x[first : first + size], size).astype(np.int32) for x in (users, items)
            )
            found = _of_tile(ranker.model, params, (ranker.draw, read), *map(jnp.asarray, tile))
            real = min(size, len(users) - first)
            parts.append(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], found))
    return PairRelations(*jax.tree.map(lambda *x: np.concatenate(x), *parts))


@jax.jit
def _of_tile(
    model: Relation,
    params: Params,
    histories: tuple[HistoryDraw, DeviceInteractions],
    users: Int[Array, "t"],
    items: Int[Array, "t"],
) -> tuple[Float[Array, "t d"], dict[str, Any]]:
    drawn = user_histories(*histories, users)
    mask = drawn.mask & (drawn.items != items[:, None])
    rows = params["user"][users], params["item"][items], History(params["item"][drawn.items], mask)
    relation = apply(model, params["relation"], "__call__", *rows)
    slots = apply(model, params["relation"], "slot_weights", *rows)
    return relation, slots

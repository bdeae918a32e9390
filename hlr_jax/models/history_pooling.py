"""Relations that are weighted sums of rows of the history, whose weights depend on the item.

They are not built where distances are Euclidean: weights are their coordinates in the history.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import Attention, attention_weights, pairwise_squared_distances
from hlr_jax.kernels.tiled_scores import blockwise
from hlr_jax.types import History, HistoryIds

# By how much the relation changes a user's squared distance to each item:
# `change(items [t, d], user [d], rows [P, d], mask [P]) -> [t]`, with rows and mask of the history.
Change = Callable[[Array, Array, Array, Array], Array]


def history_weights(item: Float[Array, "*#b d"], history: History, beta: float = 1.0) -> Attention:
    """Weigh the rows of a history by `w_k = item . p_k`."""
    logits = jnp.einsum("...d,...pd->...p", item, history.rows)
    return Attention(attention_weights(logits, history.mask, beta), history.mask)


def pooled_distances(
    change: Change, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
) -> Float[Array, "u k"]:
    """Measure every user to every item by weights alone."""
    changes = jax.vmap(functools.partial(change, items))(users, *history)
    return changes + pairwise_squared_distances(users, items)


def pooled_scores(
    change: Change,
    users: Float[Array, "u d"],
    tile: Float[Array, "t d"],
    catalogue: Float[Array, "i d"],
    histories: HistoryIds,
) -> Float[Array, "u t"]:
    """Score every user with every item of a tile by weights alone, some users at a time."""

    def change_of_one(user: Array, ids: Array, mask: Array) -> Array:
        return change(tile, user, catalogue[ids], mask)

    floats = len(tile) * histories.items.shape[1]
    changes = blockwise(change_of_one, (users, *histories), floats)
    return -pairwise_squared_distances(users, tile) - changes

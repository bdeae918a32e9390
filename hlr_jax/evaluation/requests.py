"""Answer requests by a few compiled programs, whatever is asked for: sizes are rounded."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.kernels.sizes import power_of_two

if TYPE_CHECKING:
    from hlr_jax.evaluation.ranker import PlacedRanker

_FEWEST_RANKED = 16
# Users are filled up to a power of two, more of them to a multiple of this.
_MANY = 1024


def ranked(k: int, num_items: int) -> int:
    """Choose how many items to rank where k are asked for."""
    return min(max(power_of_two(k), _FEWEST_RANKED), num_items)


def filled_up(rows: Int[np.ndarray, "n"], batch_size: int) -> Int[np.ndarray, "m"]:
    """Fill rows up by any, to one of few sizes.

    Args:
      batch_size: rows that are taken together; beyond it all batches are whole.
    """
    multiple = _MANY if len(rows) <= batch_size else batch_size
    size = power_of_two(len(rows))
    if size > _MANY:
        size = -(-len(rows) // multiple) * multiple
    return np.resize(rows, size)


class Ranked(NamedTuple):
    """What is ranked for users.

    Attributes:
      known: what they have, which is their history.
      hidden: what is not ranked: `known`, or nothing.
      allowed: `[I]`; items that are ranked for anybody.
    """

    known: Interactions
    hidden: Interactions
    allowed: Bool[np.ndarray, "i"]


def best(
    ranker: "PlacedRanker", rows: Int[np.ndarray, "u"], k: int, of: Ranked
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """Find the k best items of users, -1 and -inf where fewer remain.

    An item of a history is left out of it where it is ranked itself.
    """
    one_by_one = ranker.tables.model.uses_history and of.hidden is not of.known
    hidden = of.known if one_by_one else of.hidden
    padded, size = filled_up(rows, ranker.batch_size), ranked(k, len(of.allowed))
    found = ranker.top_k(padded, size, hidden, of.allowed)
    ids, scores = (x[: len(rows)] for x in found)
    if one_by_one:
        ids, scores = _with_own(ranker, rows, of, (ids, scores))
    return ids[:, :k], scores[:, :k]


def _with_own(
    ranker: "PlacedRanker",
    rows: Int[np.ndarray, "u"],
    of: Ranked,
    others: tuple[Int[np.ndarray, "u n"], Float[np.ndarray, "u n"]],
) -> tuple[Int[np.ndarray, "u m"], Float[np.ndarray, "u m"]]:
    """Rank what users have together with the best of what they have not."""
    width = power_of_two(int(of.known.counts[rows].max(initial=1)))
    own = np.zeros((len(rows), width), np.int32)
    counts = np.zeros(own.shape, bool)
    for place, row in enumerate(rows.tolist()):
        items = of.known.of(row)
        own[place, : len(items)], counts[place, : len(items)] = items, of.allowed[items]
    padded = filled_up(np.arange(len(rows), dtype=np.int32), ranker.batch_size)
    scores = ranker.pair_scores(rows[padded], own[padded])[: len(rows)]
    ids = np.concatenate([np.where(counts, own, -1), others[0]], axis=1)
    scores = np.concatenate([np.where(counts, scores, -np.inf), others[1]], axis=1)
    # Equal scores in the order of items.
    order = np.lexsort((ids, -scores))
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

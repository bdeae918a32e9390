"""What rows of new users and new items are fitted by: a softmax over the whole catalogue.

All other rows are as they were trained. ``distance(u, i, history)`` is that of a user's point to an
item's point, ``history`` the numbers of the items that the relation reads.
"""

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np

from oracles.arrays import Array

Distance = Callable[[Sequence[int]], float]


def negative_log_probability(positive: float, others: Sequence[float], temperature: float) -> float:
    """``-log (exp(-D / T) / (exp(-D / T) + sum_j exp(-D_j / T)))``."""
    logits = [-d / temperature for d in (positive, *others)]
    top = max(logits)
    return top + math.log(sum(math.exp(x - top) for x in logits)) - logits[0]


def without(history: Sequence[int], item: int) -> list[int]:
    """An item is left out of its own history."""
    return [n for n in history if n != item]


def user_loss(distances: Array, has: Collection[int], temperature: float) -> float:
    """The mean of ``-log p`` of what a user has, each among all that it has not.

    Args:
      distances: to all items, each left out of its own history.
    """
    unseen = [d for n, d in enumerate(distances) if n not in has]
    return sum(
        negative_log_probability(float(distances[i]), unseen, temperature) for i in has
    ) / len(has)


def item_loss(
    to_item: Sequence[float],
    distances: Sequence[Array],
    has: Sequence[Collection[int]],
    owners: Collection[int],
    temperature: float,
) -> float:
    """The sum over users of ``-log p`` of what they have, as far as a new item has a part in it.

    Owners have it beside what they had: it is one more positive. For all others it is one more
    negative of each of their positives; what these cost without it is subtracted.

    Args:
      to_item: distance of each user to the new item.
      distances: of each user to all other items, each left out of its own history.
      has: what each user had.
    """
    total = 0.0
    for u, d in enumerate(to_item):
        unseen = [float(x) for n, x in enumerate(distances[u]) if n not in has[u]]
        if u in owners:
            total += negative_log_probability(d, unseen, temperature)
            continue
        for i in has[u]:
            positive = float(distances[u][i])
            total += negative_log_probability(positive, [*unseen, d], temperature)
            total -= negative_log_probability(positive, unseen, temperature)
    return total


def mean_of_rows(table: Array, rows: Collection[int]) -> Array:
    """The mean of some rows."""
    return np.mean([table[n] for n in rows], axis=0)

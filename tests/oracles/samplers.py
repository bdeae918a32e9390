"""Which items are negatives, how likely each is, and how much a user counts."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from oracles.arrays import Array


def unseen_negatives(items: Sequence[int], seen: Collection[int]) -> NDArray[np.bool_]:
    """Which of some items count as negatives of a user: those not seen, and each item once.

    Of equal ones the first counts.
    """
    mask, met = np.zeros(len(items), bool), set()
    for place, item in enumerate(items):
        mask[place] = item not in seen and item not in met
        met.add(item)
    return mask


def negative_probabilities(
    popularity: Sequence[int], seen: Collection[int], exponent: float = 0.0
) -> Array:
    """``p_j ~ (training popularity of j)^exponent`` over the items that a user has not seen.

    An item that nobody has counts as if one user had it.
    """
    weights = np.zeros(len(popularity))
    for item, count in enumerate(popularity):
        if item not in seen:
            weights[item] = float(max(count, 1)) ** exponent
    return weights / sum(weights)


def user_weight(interactions: int, exponent: float) -> float:
    """What an interaction of a user with so many counts: ``n^-exponent``."""
    return float(max(interactions, 1)) ** -exponent

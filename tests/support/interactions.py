"""Interactions written as lists of items, and what batches are drawn from them."""

import math
from typing import Any

import jax
import numpy as np
from scipy import stats

from hlr_jax.data.interactions import Interactions
from hlr_jax.sampling import batches
from hlr_jax.sampling.histories import history_choice
from hlr_jax.sampling.samplers import PerExample
from hlr_jax.sampling.sources import (
    DeviceInteractions,
    SamplingSource,
    TripletSource,
    union_of_splits,
)

# A sampler of the right distribution stays above it, except once in this many seeds; a wrong
# one falls below by far with the number of draws made here. The seeds are fixed.
SMALLEST_P_VALUE = 1e-4


def interactions(items_of: list[list[int]], num_items: int) -> Interactions:
    """The items of each user."""
    users = [user for user, items in enumerate(items_of) for _ in items]
    items = [item for items in items_of for item in items]
    return Interactions.from_pairs(
        np.array(users, int), np.array(items, int), len(items_of), num_items
    )


# Users with many items, few and none; every item is of somebody.
ITEMS_OF = [[0, 3, 7, 9], [], [2], [1, 2, 3, 4, 5, 6, 8], [0, 9], [4, 5, 6]]
TRAIN = interactions(ITEMS_OF, 10)


def sampling_source(
    train: Interactions,
    seen: Interactions | None = None,
    history: str = "uniform",
    exponent: float = 0.0,
    popularity: np.ndarray | None = None,
) -> SamplingSource:
    """What batches are drawn from, by training interactions and what else users have seen."""
    popularity = train.popularity if popularity is None else popularity
    rows = DeviceInteractions.of(train)
    return SamplingSource(
        rows,
        rows if seen is None else DeviceInteractions.of(seen),
        history_choice(history, popularity),
        PerExample(popularity_exponent=exponent).prepare(
            popularity, train if seen is None else seen
        ),
        train.num_items,
    )


def training_source(train: Interactions, first: int = 0, **kwargs: Any) -> TripletSource:
    """The training interactions, each with what `sampling_source` says."""
    return TripletSource.of_training(sampling_source(train, **kwargs), train, first)


def validation_source(train: Interactions, valid: Interactions, **kwargs: Any) -> TripletSource:
    """The validation interactions, whose users have seen both splits."""
    base = sampling_source(train, union_of_splits(train, valid), **kwargs)
    return TripletSource.of_validation(base, valid)


draw_batch = jax.jit(batches.draw_batch, static_argnames="axes")


def assert_distributed(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Chi-square test of `counts` against `probabilities`."""
    assert math.isclose(probabilities.sum(), 1)
    expected = probabilities * counts.sum()
    assert expected.min() > 50, "too few draws for a chi-square test"
    assert stats.chisquare(counts, expected).pvalue > SMALLEST_P_VALUE

"""Recommenders without embeddings, to compare with."""

from typing import Any

import numpy as np
from jaxtyping import Int

from hlr_jax.config import EvaluationConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.recommender import measure


def most_popular(
    train: Interactions, known: Interactions, users: Int[np.ndarray, "u"], k: int
) -> Int[np.ndarray, "u k"]:
    """The k items with most training interactions that each user does not know yet.

    Returns:
      Item ids, most popular first (ties by id); -1 where fewer than k remain.
    """
    order = np.argsort(-train.popularity, kind="stable").astype(np.int32)
    top = np.full((len(users), k), -1, np.int32)
    for row, user in zip(top, users.tolist(), strict=True):
        # No more than k plus what the user knows have to be looked at.
        candidates = order[: k + len(known.of(user))]
        unknown = candidates[~np.isin(candidates, known.of(user))][:k]
        row[: len(unknown)] = unknown
    return top


def evaluate_most_popular(dataset: Dataset, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Test metrics of `most_popular`, as `Recommender.evaluate` has them for a model."""
    users = np.flatnonzero(dataset.test.counts)
    known = dataset.train.union(dataset.valid)
    top = most_popular(dataset.train, known, users, max(evaluation.cutoffs))
    return measure(top, users, dataset.test, dataset.popularity, evaluation)

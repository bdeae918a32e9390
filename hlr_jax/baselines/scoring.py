"""Score all items for some users, as fitted baselines do, and evaluate the scores."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.evaluate import evaluate_split
from hlr_jax.evaluation.requests import Ranked, ranked

# Bounds the memory of the scores that are held at once (entries).
_ENTRIES_AT_ONCE = 2**26


# What is measured: from users [u] (rows of the training interactions) and their histories [u, I]
# at the time of ranking (zeros and ones) to scores [u, I] of all items, larger is better.
Scorer = Callable[[np.ndarray, scipy.sparse.csr_matrix], np.ndarray]


def as_matrix(interactions: Interactions) -> scipy.sparse.csr_matrix:
    """Return `[U, I]` zeros and ones, float32."""
    ones = np.ones(len(interactions), np.float32)
    shape = (interactions.num_users, interactions.num_items)
    # A copy: prepared data are read-only, and not all libraries take such arrays.
    return scipy.sparse.csr_matrix(
        (ones, interactions.items, interactions.offsets), shape, copy=True
    )


def top_k(
    scorer: Scorer, users: Int[np.ndarray, "u"], k: int, known: Interactions
) -> Int[np.ndarray, "u k"]:
    """Find the k best items outside `known`, which is also the history, for each of the users.

    Returns:
      Item ids, best first (ties by id); -1 where fewer than k remain.
    """
    everything = np.ones(known.num_items, bool)
    return best(scorer, users, k, Ranked(known, known, everything))[0]


def best(
    scorer: Scorer, users: Int[np.ndarray, "u"], k: int, of: Ranked
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """Find the k best of what is ranked for each of the users, and their scores.

    Returns:
      Item ids, best first (ties by id), and scores; -1 and -inf where fewer than k remain.
    """
    ids = np.full((len(users), k), -1, np.int32)
    found = np.full((len(users), k), -np.inf, np.float32)
    for part, history, scores in in_parts(scorer, users, of.known):
        is_same = of.hidden is of.known
        hidden = history if is_same else as_matrix(of.hidden)[users[part]]
        left = np.array(scores, np.float32)
        left[:, ~of.allowed] = -np.inf
        left[np.repeat(np.arange(len(left)), np.diff(hidden.indptr)), hidden.indices] = -np.inf
        length = min(k, left.shape[1])
        ids[part, :length], found[part, :length] = best_of_rows(left, length)
    return ids, found


def best_of_rows(
    scores: Float[np.ndarray, "u i"], k: int
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """Find the k best of each row, ties by place; -1 and -inf where fewer are left."""
    top = jax.lax.top_k(scores, ranked(k, scores.shape[1]))
    values, places = (np.asarray(x)[:, :k] for x in top)
    return np.where(values > -np.inf, places, -1).astype(np.int32), values


def evaluate(
    scorer: Scorer, dataset: Dataset, evaluation: EvaluationConfig, split: str = "test"
) -> dict[str, Any]:
    """Compute metrics of the users with interactions in the split, as for a trained model.

    See `hlr_jax.evaluation.evaluate.evaluate_split`, which says what is ranked and returned.
    """
    return evaluate_split(_Ranks(scorer), dataset, Config(evaluation=evaluation), split)


@dataclasses.dataclass(frozen=True)
class _Ranks:
    """A baseline as `evaluate_split` asks for it."""

    scorer: Scorer

    def top_items(
        self, users: Int[np.ndarray, "u"], k: int, known: Interactions
    ) -> Int[np.ndarray, "u k"]:
        return top_k(self.scorer, users, k, known)

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        candidates: Int[np.ndarray, "u n"],
        known: Interactions,
    ) -> Float[np.ndarray, "u n"]:
        chosen = np.empty(candidates.shape, np.float32)
        for part, _, scores in in_parts(self.scorer, users, known):
            chosen[part] = np.take_along_axis(scores, candidates[part], axis=1)
        return chosen


def in_parts(
    scorer: Scorer, users: Int[np.ndarray, "u"], known: Interactions
) -> Iterator[tuple[slice, scipy.sparse.csr_matrix, Float[np.ndarray, "p I"]]]:
    """Yield histories and scores of parts of the users that fit into memory."""
    histories = as_matrix(known)
    rows = max(1, _ENTRIES_AT_ONCE // known.num_items)
    for start in range(0, len(users), rows):
        part = slice(start, min(start + rows, len(users)))
        history = histories[users[part]]
        yield part, history, scorer(users[part], history)

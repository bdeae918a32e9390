"""Score all items for some users, as fitted baselines do, and evaluate the scores."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.evaluate import evaluate_split

# Bounds the memory of the scores that are held at once (entries).
_ENTRIES_AT_ONCE = 2**26


# A fitted baseline: from users [u] (rows of the training interactions) and their histories [u, I]
# at the time of ranking (zeros and ones) to scores [u, I] of all items, larger is better.
Scorer = Callable[[np.ndarray, scipy.sparse.csr_matrix], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ItemScores:
    """Gives all users the same scores."""

    scores: Float[np.ndarray, "I"]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return np.broadcast_to(self.scores, (len(users), len(self.scores)))


@dataclasses.dataclass(frozen=True)
class ItemWeights:
    """Scores `score(u, j) = sum of weights[i, j] over the items i of the history of u`."""

    # [I, I], dense or sparse.
    weights: np.ndarray | scipy.sparse.csr_matrix

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        scores = history @ self.weights
        return scores.toarray() if scipy.sparse.issparse(scores) else scores


@dataclasses.dataclass(frozen=True)
class Factors:
    """Scores `score(u, i) = user[u] . item[i]`, whatever the history."""

    user: Float[np.ndarray, "U d"]
    item: Float[np.ndarray, "I d"]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return self.user[users] @ self.item.T


@dataclasses.dataclass(frozen=True)
class FoldedInFactors:
    """Scores as `Factors` does, with vectors of untrained users solved for from their history.

    Attributes:
      solve: `[n, I]` histories to `[n, d]` vectors, with the items' vectors as they are.
    """

    user: Float[np.ndarray, "U d"]
    item: Float[np.ndarray, "I d"]
    is_trained: Bool[np.ndarray, "U"]
    solve: Callable[[scipy.sparse.csr_matrix], np.ndarray]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        vectors = self.user[users]
        untrained = np.flatnonzero(~self.is_trained[users])
        if untrained.size:
            vectors[untrained] = self.solve(history[untrained])
        return vectors @ self.item.T


def als_vectors(
    history: scipy.sparse.csr_matrix,
    item: Float[np.ndarray, "I d"],
    alpha: float,
    regularization: float,
) -> Float[np.ndarray, "n d"]:
    """Solve for the vectors of users that minimise what implicit ALS does.

    Hu, Koren and Volinsky, ICDM 2008, eq. 4.

    Args:
      alpha: the weight of an item of the history; that of others is 1.
      regularization: of the squared norm.
    """
    item = item.astype(np.float64)
    gram = item.T @ item + regularization * np.eye(item.shape[1])
    vectors = np.zeros((history.shape[0], item.shape[1]))
    for row, vector in enumerate(vectors):
        rows = item[history.indices[history.indptr[row] : history.indptr[row + 1]]]
        weights = gram + (alpha - 1) * (rows.T @ rows)
        vector[:] = np.linalg.solve(weights, alpha * rows.sum(0))
    return vectors


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
    top = np.full((len(users), k), -1, np.int32)
    length = min(k, known.num_items)
    for part, history, scores in _in_parts(scorer, users, known):
        allowed = np.array(scores, np.float32)
        rows = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
        allowed[rows, history.indices] = -np.inf
        best, ids = jax.lax.top_k(allowed, length)
        top[part, :length] = np.where(np.asarray(best) > -np.inf, np.asarray(ids), -1)
    return top


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
        for part, _, scores in _in_parts(self.scorer, users, known):
            chosen[part] = np.take_along_axis(scores, candidates[part], axis=1)
        return chosen


def _in_parts(
    scorer: Scorer, users: Int[np.ndarray, "u"], known: Interactions
) -> Iterator[tuple[slice, scipy.sparse.csr_matrix, Float[np.ndarray, "p I"]]]:
    """Yield histories and scores of parts of the users that fit into memory."""
    histories = as_matrix(known)
    rows = max(1, _ENTRIES_AT_ONCE // known.num_items)
    for start in range(0, len(users), rows):
        part = slice(start, min(start + rows, len(users)))
        history = histories[users[part]]
        yield part, history, scorer(users[part], history)

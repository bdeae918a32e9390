"""What baselines have fitted: scores of all items for some users, and what is measured on them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.runs.recommender import (
    check_cutoffs,
    check_protocol,
    given_candidates,
    measure,
    summarize,
)

# Bounds the memory of the scores that are held at once (entries).
_ENTRIES_AT_ONCE = 2**26


# A fitted baseline. From users [u] (rows of the training interactions) and the history [u, I] that
# each has at the time of ranking (zeros and ones) to scores [u, I] of all items, larger is better.
Scorer = Callable[[np.ndarray, scipy.sparse.csr_matrix], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ItemScores:
    """The same scores for everybody."""

    scores: Float[np.ndarray, "I"]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return np.broadcast_to(self.scores, (len(users), len(self.scores)))


@dataclasses.dataclass(frozen=True)
class ItemWeights:
    """`score(u, j) = sum of weights[i, j] over the items i of the history of u`."""

    # [I, I], dense or sparse.
    weights: np.ndarray | scipy.sparse.csr_matrix

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        scores = history @ self.weights
        return scores.toarray() if scipy.sparse.issparse(scores) else scores


@dataclasses.dataclass(frozen=True)
class Factors:
    """`score(u, i) = user[u] . item[i]`, whatever the history."""

    user: Float[np.ndarray, "U d"]
    item: Float[np.ndarray, "I d"]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return self.user[users] @ self.item.T


def as_matrix(interactions: Interactions) -> scipy.sparse.csr_matrix:
    """`[U, I]` zeros and ones, float32."""
    ones = np.ones(len(interactions), np.float32)
    shape = (interactions.num_users, interactions.num_items)
    # A copy, because kept data are read-only and not everybody takes such arrays.
    return scipy.sparse.csr_matrix(
        (ones, interactions.items, interactions.offsets), shape, copy=True
    )


def top_k(
    scorer: Scorer, users: Int[np.ndarray, "u"], k: int, known: Interactions
) -> Int[np.ndarray, "u k"]:
    """The k best items outside `known`, which is also the history, for each of the users.

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
    """Metrics of the users with interactions in the split, as `Recommender.evaluate` has them.

    Items known before the split (training; for `test`, validation too) are not ranked, and are
    the history that is scored with.

    Raises:
      InputError: the split is empty, a cutoff passes the catalogue, or the protocol asks for
        negatives that the data set does not give.
    """
    check_cutoffs(evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
    relevant = {"valid": dataset.valid, "test": dataset.test}[split]
    if not len(relevant):
        raise InputError(f"data set {dataset.name}: no user has an item in the {split} split")
    known = dataset.train if split == "valid" else dataset.train.union(dataset.valid)
    if evaluation.protocol == "sampled":
        if split != "test":
            raise InputError(
                "config.evaluation.protocol='sampled': negatives are given for the test split "
                f"only; use full for {split}"
            )
        check_protocol(Config(evaluation=evaluation), dataset)
        ranks = _sampled_ranks(scorer, dataset, known)
        return summarize(metrics.evaluate_sampled(ranks, evaluation.cutoffs), evaluation)
    users = np.flatnonzero(relevant.counts)
    top = top_k(scorer, users, max(evaluation.cutoffs), known)
    return measure(top, users, relevant, dataset.popularity, evaluation)


def _sampled_ranks(scorer: Scorer, dataset: Dataset, known: Interactions) -> Int[np.ndarray, "u"]:
    """Rank of each user's one test item among its given negatives."""
    users, candidates = given_candidates(dataset)
    chosen = np.empty(candidates.shape, np.float32)
    for part, _, scores in _in_parts(scorer, users, known):
        chosen[part] = np.take_along_axis(scores, candidates[part], axis=1)
    listed = candidates[:, 1:] == candidates[:, :1]
    return metrics.sampled_ranks(chosen[:, 0], chosen[:, 1:], listed)


def _in_parts(
    scorer: Scorer, users: Int[np.ndarray, "u"], known: Interactions
) -> Iterator[tuple[slice, scipy.sparse.csr_matrix, Float[np.ndarray, "p I"]]]:
    """Histories and scores of parts of the users that fit into memory."""
    histories = as_matrix(known)
    rows = max(1, _ENTRIES_AT_ONCE // known.num_items)
    for start in range(0, len(users), rows):
        part = slice(start, min(start + rows, len(users)))
        history = histories[users[part]]
        yield part, history, scorer(users[part], history)

"""Evaluate a model or a baseline on a split: rank items for its users, and compute all metrics."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.parallel import processes


@runtime_checkable
class ItemRanker(Protocol):
    """Ranks items for users: a trained model, or a baseline."""

    def top_items(
        self, users: Int[np.ndarray, "u"], k: int, known: Interactions
    ) -> Int[np.ndarray, "u k"]:
        """Return the k best items that are not in `known`, best first, followed by -1.

        Args:
          known: interactions of the users, which are their histories too.
        """

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        candidates: Int[np.ndarray, "u n"],
        known: Interactions,
    ) -> Float[np.ndarray, "u n"]:
        """Score each user's own candidates; larger is better."""


def evaluate_split(
    ranker: ItemRanker,
    dataset: Dataset,
    config: Config,
    split: str,
    own_users: slice | None = None,
) -> dict[str, Any]:
    """Compute the metrics of all users with interactions in a split, `valid` or `test`.

    Items known before the split (`Dataset.known`: those of training, those given of held-out users,
    and for test those of validation too) are the users' histories, and are not ranked. Each process
    evaluates some of the users, and returns the metrics of all.

    Args:
      own_users: whose interactions this process ranks with; None if all processes have all users,
        which are then divided among them.

    Returns:
      `protocol`, `users`, every metric of `hlr_jax.evaluation.metrics` at every cutoff, and
      intervals, cohorts and `per_user` (metric to list of values, None where it leaves a user out)
      as configured.

    Raises:
      InputError: the split is empty, a cutoff passes the catalogue, or the protocol asks for
        negatives that the data set does not give.
    """
    evaluation = config.evaluation
    if split not in ("valid", "test"):
        raise InputError(f"split={split!r}: use valid or test")
    check_cutoffs(evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
    relevant = {"valid": dataset.valid, "test": dataset.test}[split]
    if not len(relevant):
        raise InputError(f"data set {dataset.name}: no user has an item in the {split} split")
    own = own_users or slice(None)
    relevant, known = relevant.part(own), dataset.known(split, own)
    if evaluation.protocol == "sampled":
        if split != "test":
            raise InputError(
                "config.evaluation.protocol='sampled': negatives are given for the test split "
                f"only; use full for {split}"
            )
        check_protocol(config, dataset)
        ranks = _sampled_ranks(ranker, dataset, known)
        return _summarize(metrics.evaluate_sampled(ranks, evaluation.cutoffs), evaluation)
    users = np.flatnonzero(relevant.counts).astype(np.int32)
    if own_users is None:
        users = np.array_split(users, processes.count())[processes.index()]
    top = ranker.top_items(users, max(evaluation.cutoffs), known)
    return _measure(top, users, relevant, dataset.popularity, evaluation)


def _sampled_ranks(
    ranker: ItemRanker, dataset: Dataset, known: Interactions
) -> Int[np.ndarray, "u"]:
    """Rank each user's one test item among its given negatives."""
    users, candidates = _given_candidates(dataset)
    scores = ranker.pair_scores(users, candidates, known)
    listed = candidates[:, 1:] == candidates[:, :1]
    return metrics.sampled_ranks(scores[:, 0], scores[:, 1:], listed)


def _given_candidates(
    dataset: Dataset,
) -> tuple[Int[np.ndarray, "u"], Int[np.ndarray, "u n"]]:
    """Find users with one test item and given negatives; list that item, then the negatives."""
    assert dataset.given_negatives is not None
    users = np.flatnonzero((dataset.given_negatives >= 0).all(axis=1) & (dataset.test.counts == 1))
    positives = dataset.test.items[dataset.test.offsets[users]]
    return users, np.concatenate([positives[:, None], dataset.given_negatives[users]], axis=1)


def _measure(
    top: Int[np.ndarray, "u k"],
    users: Int[np.ndarray, "u"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "i"],
    evaluation: EvaluationConfig,
) -> dict[str, Any]:
    """Compute all metrics of the ranked lists of all processes.

    Args:
      top: item rows, best first, -1 where a list is shorter.
      users: whose lists these are.
      relevant: the interactions that the lists should contain.
      popularity: training interactions of each item.
    """
    cutoffs = evaluation.cutoffs
    found = metrics.recommended(top, users, relevant, cutoffs)
    per_user = processes.joined(metrics.evaluate(top, users, relevant, popularity, cutoffs))
    of_processes = processes.joined({"found": found[None]})["found"]
    everywhere = np.asarray(of_processes.any(axis=0))
    catalogue = metrics.of_recommended(everywhere, popularity, cutoffs)
    return _summarize(per_user, evaluation) | catalogue


def _summarize(per_user: dict[str, np.ndarray], evaluation: EvaluationConfig) -> dict[str, Any]:
    """Average over users, with intervals, cohorts and values of each user as configured."""
    summary = {"protocol": evaluation.protocol} | metrics.summarize(
        per_user,
        bootstrap=evaluation.bootstrap,
        cohorts=evaluation.cohorts,
        cohort_size=evaluation.cohort_size,
    )
    if evaluation.per_user:
        summary["per_user"] = {
            name: [None if np.isnan(value) else value for value in values.round(6).tolist()]
            for name, values in per_user.items()
        }
    return summary


def check_protocol(config: Config, dataset: Dataset) -> None:
    """Raise InputError where the sampled protocol has no negatives to rank among."""
    if config.evaluation.protocol == "sampled" and dataset.given_negatives is None:
        raise InputError(
            f"config.evaluation.protocol='sampled': data set {dataset.name} gives no "
            "negatives; use full"
        )
    if config.evaluation.protocol == "sampled" and config.sharding.is_sharded:
        raise InputError(
            "config.evaluation.protocol='sampled': needs replicated tables; use full, or "
            "config.sharding.tables='replicated'"
        )


def check_cutoffs(cutoffs: Sequence[int], dataset: Dataset, field: str) -> None:
    """Raise InputError where a list would be longer than the catalogue."""
    if max(cutoffs) > dataset.num_items:
        raise InputError(
            f"{field}: a cutoff of {max(cutoffs)} is more than the catalogue's "
            f"{dataset.num_items} items; use at most that"
        )

"""Measure ranked lists: all metrics of all users, over all processes of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.parallel import processes


def given_candidates(
    dataset: Dataset,
) -> tuple[Int[np.ndarray, "u"], Int[np.ndarray, "u n"]]:
    """Find users with one test item and given negatives; list that item, then the negatives."""
    assert dataset.given_negatives is not None
    users = np.flatnonzero((dataset.given_negatives >= 0).all(axis=1) & (dataset.test.counts == 1))
    positives = dataset.test.items[dataset.test.offsets[users]]
    return users, np.concatenate([positives[:, None], dataset.given_negatives[users]], axis=1)


def measure(
    top: Int[np.ndarray, "u k"],
    users: Int[np.ndarray, "u"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "i"],
    evaluation: EvaluationConfig,
) -> dict[str, Any]:
    """Compute all metrics of the ranked lists of all processes, as `Recommender.evaluate` returns.

    Args:
      top: item rows, best first, -1 where a list is shorter.
      users: whose lists these are.
      relevant: what should be found.
      popularity: training interactions of each item.
    """
    cutoffs = evaluation.cutoffs
    found = metrics.recommended(top, users, relevant, cutoffs)
    per_user = processes.joined(metrics.evaluate(top, users, relevant, popularity, cutoffs))
    of_processes = processes.joined({"found": found[None]})["found"]
    everywhere = np.asarray(of_processes.any(axis=0))
    catalogue = metrics.of_recommended(everywhere, popularity, cutoffs)
    return summarize(per_user, evaluation) | catalogue


def summarize(per_user: dict[str, np.ndarray], evaluation: EvaluationConfig) -> dict[str, Any]:
    """Average over users, and add what else is configured; resamples and cohorts are fixed."""
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

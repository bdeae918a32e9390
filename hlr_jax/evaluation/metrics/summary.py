"""Average metrics over users: means, bootstrap intervals, and the HLR paper's cohorts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hlr_jax.errors import InputError


def summarize(
    per_user: Mapping[str, np.ndarray],
    bootstrap: int = 0,
    seed: int = 0,
    cohorts: int = 0,
    cohort_size: int = 10_000,
) -> dict[str, Any]:
    """Average over users, with bootstrap intervals and cohorts if they are wanted.

    A user whose value is NaN is left out of that metric's mean; a mean over no users is 0.

    Args:
      per_user: `"name@cutoff"` to `[U]`, from `evaluate` or `evaluate_sampled`.
      bootstrap: resamples of the users (with replacement) for the intervals; 0 leaves them out.
      seed: of the resamples and the cohorts.
      cohorts: groups of users for the HLR paper's mean and deviation; 0 leaves them out.
      cohort_size: users in each group.

    Returns:
      `{"users": U, "ndcg@10": 0.257, ...}`, with `"intervals": {"ndcg@10": [low, high]}` the
      percentile bootstrap's 95 %, and `"cohorts": {"ndcg@10": {"mean": m, "std": s}}` over
      disjoint random groups (`s` the population's deviation, as in the HLR code).

    Raises:
      InputError: there are too few users for the cohorts.
    """
    names = list(per_user)
    values = np.stack([per_user[name] for name in names], axis=1).astype(np.float64)
    known = (~np.isnan(values)).astype(np.float64)
    values = np.nan_to_num(values)

    everyone = np.arange(len(values))

    def mean(rows: np.ndarray) -> np.ndarray:  # rows of users, any number of times -> [metrics]
        weights = np.bincount(rows, minlength=len(values)).astype(np.float64)
        return (weights @ values) / np.maximum(weights @ known, 1)

    summary: dict[str, Any] = {"users": len(values)}
    summary |= dict(zip(names, mean(everyone).tolist(), strict=True))
    if bootstrap:
        random = np.random.default_rng([seed, 0])
        means = np.empty((bootstrap, len(names)))
        for i in range(bootstrap):
            means[i] = mean(random.integers(len(values), size=len(values)))
        bounds = np.quantile(means, [0.025, 0.975], axis=0).T
        summary["intervals"] = dict(zip(names, bounds.tolist(), strict=True))
    if cohorts:
        groups = cohort_rows(len(values), cohorts, cohort_size, seed)
        means = np.stack([mean(group) for group in groups])
        summary["cohorts"] = {
            name: {"mean": float(m), "std": float(s)}
            for name, m, s in zip(names, means.mean(0), means.std(0), strict=True)
        }
    return summary


def cohort_rows(num_users: int, cohorts: int, cohort_size: int, seed: int = 0) -> np.ndarray:
    """Draw disjoint random groups of the users 0..num_users - 1, `[cohorts, cohort_size]`.

    Raises:
      InputError: there are too few users.
    """
    if cohorts * cohort_size > num_users:
        raise InputError(
            f"config.evaluation.cohorts={cohorts}: {cohorts} groups of {cohort_size} users"
            f" (config.evaluation.cohort_size) need {cohorts * cohort_size} users with test"
            f" items, there are {num_users}; use fewer or smaller groups"
        )
    order = np.random.default_rng([seed, 1]).permutation(num_users)
    return order[: cohorts * cohort_size].reshape(cohorts, cohort_size)

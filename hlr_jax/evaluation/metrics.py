"""Ranking metrics: the standard ones, and the papers' own variants under their own names.

Ranking happens elsewhere (`hlr_jax.evaluation.ranking`) and hands over lists, best first. `hits`
turns them into booleans; each metric is then a small function of `hits [U, k]` and of
`num_relevant [U]`, the number of relevant items of each user (at least 1), and returns
one number per user. `k`, the width of `hits`, is the cutoff: a shorter list is filled up
with misses. With `h_r` in {0, 1} the hit at rank `r = 1..k` and `n` the number of
relevant items, the gain of rank `r` is `1 / log2(r + 1)` wherever a DCG is meant.

All of them are better when larger. A value of NaN leaves the user out of the mean.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError

# Bounds the memory that `hits` needs beside its result (entries searched at once).
_ENTRIES_AT_ONCE = 2**22


def hits(
    top: Int[np.ndarray, "U k"], users: Int[np.ndarray, "U"], relevant: Interactions
) -> Bool[np.ndarray, "U k"]:
    """Which places of the lists hold a relevant item.

    Args:
      top: `[U, k]` distinct item ids, best first; -1 where a list is shorter.
      users: `[U]` the user (row of `relevant`) of each list.
      relevant: the interactions to be found.
    """
    _check_ids(top, users, relevant)
    known = relevant.users.astype(np.int64) * relevant.num_items + relevant.items  # increasing
    found = np.zeros(top.shape, bool)
    if not known.size:
        return found
    rows = max(1, _ENTRIES_AT_ONCE // max(1, top.shape[1]))
    for start in range(0, len(top), rows):
        part = slice(start, start + rows)
        codes = users[part, None].astype(np.int64) * relevant.num_items + top[part]
        place = np.minimum(np.searchsorted(known, codes), known.size - 1)
        found[part] = (known[place] == codes) & (top[part] >= 0)
    return found


def recall(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """`sum_r h_r / n`: the share of the user's relevant items that is in the list."""
    return hits.sum(1) / num_relevant


def precision(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """`sum_r h_r / k`: the share of the list that is relevant; empty places count as misses."""
    return hits.sum(1) / hits.shape[1]


def hit_rate(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """1 if anything in the list is relevant, else 0."""
    return np.where(hits.any(1), 1.0, 0.0)


def mrr(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Reciprocal rank: `1 / r` of the first hit, 0 without one (TREC's recip_rank)."""
    return np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)


def ndcg(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Normalised discounted cumulative gain, `sum_r h_r / log2(r + 1)` over the best possible.

    The best possible list of `k` has its first `min(k, n)` places relevant (Järvelin and
    Kekäläinen 2002, binary gains; TREC's ndcg_cut; "global" NDCG in the HLR paper's code).
    """
    gain = _gains(hits.shape[1])
    ideal = np.cumsum(gain)[np.minimum(num_relevant, hits.shape[1]) - 1]
    return hits @ gain / ideal


def average_precision(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Average precision of the list, `sum_r h_r * precision@r / min(k, n)`.

    Divided by the most hits that a list of `k` can have, so that a perfect list scores 1.
    (TREC's map_cut divides by `n`, `map_list_length` by `k`.)
    """
    return _summed_precision(hits) / np.minimum(num_relevant, hits.shape[1])


def ndcg_local(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """The HLR paper's "local" NDCG: the DCG over that of the same list in its ideal order.

    `sum_r h_r / log2(r + 1)` over `sum_{r <= number of hits} 1 / log2(r + 1)`: relevant items
    that were not retrieved cost nothing. NaN (left out of the mean) without a hit.
    (Tran et al. 2021, as in the published code.)
    """
    gain = _gains(hits.shape[1])
    number = hits.sum(1)
    ideal = np.concatenate([[np.nan], np.cumsum(gain)])[number]
    return hits @ gain / ideal


def mrr_all_hits(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """The HLR paper's MRR: `sum_r h_r / r`, over every hit and not only the first; may pass 1.

    (Tran et al. 2021, as in the published code.)
    """
    return hits @ (1 / np.arange(1, hits.shape[1] + 1))


def map_list_length(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """The HLR paper's MAP: `sum_r h_r * precision@r / k`, divided by the length of the list.

    (Tran et al. 2021, as in the published code.)
    """
    return _summed_precision(hits) / hits.shape[1]


METRICS: dict[
    str,
    Callable[
        [Bool[np.ndarray, "U k"], Int[np.ndarray, "U"]],
        Float[np.ndarray, "U"],
    ],
] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "map": average_precision,
    "ndcg_local": ndcg_local,
    "mrr_all_hits": mrr_all_hits,
    "map_list_length": map_list_length,
}


def parse(name: str, field: str = "config.training.select") -> tuple[str, int]:
    """Read `"ndcg@10"` as `("ndcg", 10)`.

    Args:
      name: a name of `METRICS`, `@` and a cutoff of at least 1.
      field: where the name was given, for the error.

    Raises:
      InputError: there is no such metric, or no cutoff.
    """
    match = re.fullmatch(r"(\w+)@([1-9][0-9]{0,8})", name, re.ASCII)
    if match is None or match[1] not in METRICS:
        raise InputError(
            f"{field}={name!r}: use a metric and a cutoff like ndcg@10;"
            f" the metrics are {', '.join(METRICS)}"
        )
    return match[1], int(match[2])


def evaluate(
    top: Int[np.ndarray, "U k"],
    users: Int[np.ndarray, "U"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "I"],
    cutoffs: Sequence[int],
) -> dict[str, np.ndarray]:
    """Every metric at every cutoff, user by user.

    Users without a relevant item are not counted: the arrays hold the `C <= U` counted ones,
    in the order of `users`.

    Args:
      top: `[U, k]` item ids, best first, -1 where a list is shorter; `k` reaches the largest
        cutoff, or the size of the catalogue.
      users: `[U]` the user (row of `relevant`) of each list.
      relevant: test interactions.
      popularity: `[I]` interactions per item in training.
      cutoffs: list lengths to measure at.

    Returns:
      `"name@cutoff"` to `[C]`: all of `METRICS`, and `median_popularity`, the median of the
      popularity of the user's recommended items (NaN for an empty list).

    Raises:
      InputError: no user has a relevant item, or the lists are too short for a cutoff.
    """
    counted = _counted(top, users, relevant, cutoffs)
    top, users = top[counted], users[counted]
    found = hits(top, users, relevant)
    num_relevant = relevant.counts[users]
    values = {}
    for cutoff in cutoffs:
        width = max(0, cutoff - top.shape[1])
        cut = np.pad(found[:, :cutoff], ((0, 0), (0, width)))
        for name, metric in METRICS.items():
            values[f"{name}@{cutoff}"] = metric(cut, num_relevant)
        values[f"median_popularity@{cutoff}"] = _median_popularity(top[:, :cutoff], popularity)
    return values


def catalogue(
    top: Int[np.ndarray, "U k"],
    users: Int[np.ndarray, "U"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "I"],
    cutoffs: Sequence[int],
) -> dict[str, float]:
    """What the lists of all counted users together show of the catalogue.

    Takes the arguments of `evaluate` and counts the same users. Of the set of distinct items
    in any of their lists (cut at `cutoff`),

    - `coverage@cutoff` is its share of the catalogue;
    - `mmr@cutoff` is the median of its items' popularity, each item counted once however often
      it is recommended: MMR of the HLR paper (Tran et al. 2021), as the published code computes
      it for each cohort of users; 0 if all lists are empty. It falls as more users are asked,
      so compare groups of one size. `evaluate` has the median of each user's own list.
    """
    found = recommended(top, users, relevant, cutoffs)
    return of_recommended(found, popularity, cutoffs)


def recommended(
    top: Int[np.ndarray, "U k"],
    users: Int[np.ndarray, "U"],
    relevant: Interactions,
    cutoffs: Sequence[int],
) -> Bool[np.ndarray, "cutoffs I"]:
    """Whether an item is in any of the lists that `catalogue` looks at, cut at each cutoff."""
    counted = _counted(top, users, relevant, cutoffs)
    found = np.zeros((len(cutoffs), relevant.num_items + 1), bool)  # the last place takes the -1
    for of_cutoff, cutoff in zip(found, cutoffs, strict=True):
        of_cutoff[top[counted, :cutoff]] = True
    return found[:, :-1]


def of_recommended(
    found: Bool[np.ndarray, "cutoffs I"],
    popularity: Int[np.ndarray, "I"],
    cutoffs: Sequence[int],
) -> dict[str, float]:
    """The values of `catalogue`, from what `recommended` found, in one place or in several."""
    values = {}
    for chosen, cutoff in zip(found, cutoffs, strict=True):
        values[f"coverage@{cutoff}"] = float(chosen.mean())
        values[f"mmr@{cutoff}"] = float(np.median(popularity[chosen])) if chosen.any() else 0.0
    return values


def sampled_ranks(
    positive_scores: Float[np.ndarray, "U"],
    negative_scores: Float[np.ndarray, "U n"],
    ignored: Bool[np.ndarray, "U n"] | None = None,
) -> Int[np.ndarray, "U"]:
    """Rank, from 1, of each user's positive item among the negatives drawn for it.

    Pessimistic: a negative with the same score (or with a NaN on either side) stands before
    the positive, so that a model that scores everything alike gains nothing.

    Args:
      positive_scores: `[U]`.
      negative_scores: `[U, n]`.
      ignored: `[U, n]` negatives that do not count. Files of drawn negatives may list the
        positive item itself (NCF's MovieLens file does): pass `negatives == positives[:, None]`.
    """
    before = ~(negative_scores < positive_scores[:, None])
    if ignored is not None:
        before &= ~ignored
    return 1 + before.sum(1)


def evaluate_sampled(ranks: Int[np.ndarray, "U"], cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """`hit_rate`, `ndcg` and `mrr` of one positive per user, from its rank among drawn negatives.

    With one relevant item these are `[rank <= k]`, `[rank <= k] / log2(rank + 1)` and
    `[rank <= k] / rank` (HR and NDCG of He et al. 2017). Numbers of a sampled ranking compare
    only with numbers on the same negatives.

    Args:
      ranks: `[U]` from 1, see `sampled_ranks`.
      cutoffs: list lengths to measure at.

    Returns:
      `"name@cutoff"` to `[U]`.
    """
    if not len(ranks):
        raise InputError("no user has a test item to rank among negatives")
    values = {}
    for cutoff in cutoffs:
        found = ranks[:, None] == np.arange(1, cutoff + 1)
        for metric in (hit_rate, ndcg, mrr):
            values[f"{metric.__name__}@{cutoff}"] = metric(found, np.ones_like(ranks))
    return values


def summarize(
    per_user: Mapping[str, np.ndarray],
    bootstrap: int = 0,
    seed: int = 0,
    cohorts: int = 0,
    cohort_size: int = 10_000,
) -> dict[str, Any]:
    """Means over users, and how certain they are.

    A user whose value is NaN is left out of that metric's mean; a mean over nobody is 0.

    Args:
      per_user: `"name@cutoff"` to `[U]`, from `evaluate` or `evaluate_sampled`.
      bootstrap: resamples of the users (with replacement) for the intervals; 0 leaves them out.
      seed: decides the resamples and the cohorts.
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
    """`[cohorts, cohort_size]` rows of disjoint random groups of the users 0..num_users - 1.

    Raises:
      InputError: there are too few users.
    """
    if cohorts * cohort_size > num_users:
        raise InputError(
            f"config.evaluation.cohorts={cohorts}: {cohorts} groups of {cohort_size} users"
            f" (config.evaluation.cohort_size) need {cohorts * cohort_size} users with test"
            f" items, there are {num_users}"
        )
    order = np.random.default_rng([seed, 1]).permutation(num_users)
    return order[: cohorts * cohort_size].reshape(cohorts, cohort_size)


def _gains(length: int) -> Float[np.ndarray, "k"]:
    return 1 / np.log2(np.arange(2, length + 2))


def _summed_precision(hits: Bool[np.ndarray, "U k"]) -> Float[np.ndarray, "U"]:
    precision_at = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision_at * hits).sum(1)


def _median_popularity(
    top: Int[np.ndarray, "U k"], popularity: Int[np.ndarray, "I"]
) -> Float[np.ndarray, "U"]:
    values = np.sort(np.where(top >= 0, popularity[top], np.inf), axis=1)
    count = (top >= 0).sum(1)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2], axis=1)  # equal if odd
    middle = np.minimum(middle, top.shape[1] - 1)
    return np.where(count > 0, np.take_along_axis(values, middle, axis=1).mean(1), np.nan)


def _check_ids(top: np.ndarray, users: np.ndarray, relevant: Interactions) -> None:
    for kind, ids, low, high in (
        ("item", top, -1, relevant.num_items),
        ("user", users, 0, relevant.num_users),
    ):
        if ids.size and (ids.min() < low or ids.max() >= high):
            wrong = ids.min() if ids.min() < low else ids.max()
            raise InputError(f"{kind} id {wrong} in the lists is outside 0..{high - 1}")


def _counted(
    top: np.ndarray, users: np.ndarray, relevant: Interactions, cutoffs: Sequence[int]
) -> np.ndarray:
    """`[U]` bool: whose list counts, once the arguments are found to fit together."""
    _check_ids(top, users, relevant)
    wanted = min(max(cutoffs), relevant.num_items)
    if top.shape[1] < wanted:
        raise InputError(
            f"config.evaluation.cutoffs={tuple(cutoffs)}: the lists hold {top.shape[1]} items,"
            f" rank {wanted}"
        )
    counted = relevant.counts[users] > 0
    if len(users) and not counted.any():
        raise InputError("no user of the lists has a relevant item: there is nothing to measure")
    return counted

"""Evaluate ranked lists: find their hits, compute every metric for each user, and coverage."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.metrics.definitions import METRICS

# What the rank of one positive item among given negatives tells.
OF_ONE_POSITIVE = ("hit_rate", "ndcg", "mrr")
# Bounds the memory that `hits` needs beside its result (entries searched at once).
_ENTRIES_AT_ONCE = 2**22


def hits(
    top: Int[np.ndarray, "U k"], users: Int[np.ndarray, "U"], relevant: Interactions
) -> Bool[np.ndarray, "U k"]:
    """Find which places of the lists hold a relevant item.

    Args:
      top: `[U, k]` distinct item ids, best first; -1 where a list is shorter.
      users: `[U]` the user (row of `relevant`) of each list.
      relevant: the interactions that the lists should contain.
    """
    _check_ids(top, users, relevant)
    known = relevant.codes
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


def evaluate(
    top: Int[np.ndarray, "U k"],
    users: Int[np.ndarray, "U"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "I"],
    cutoffs: Sequence[int],
) -> dict[str, np.ndarray]:
    """Compute every metric at every cutoff for each user.

    Users without a relevant item are left out: the arrays hold the other `C <= U` users, in the
    order of `users`.

    Args:
      top: `[U, k]` item ids, best first, -1 where a list is shorter; `k` is at least the largest
        cutoff, or the size of the catalogue.
      users: `[U]` the user (row of `relevant`) of each list.
      relevant: test interactions.
      popularity: `[I]` interactions per item in training.
      cutoffs: list lengths to evaluate.

    Returns:
      `"name@cutoff"` to `[C]`: all of `METRICS`, and `median_popularity`, the median of the
      popularity of the user's recommended items (NaN for an empty list).

    Raises:
      InputError: no user has a relevant item, or the lists are too short for a cutoff.
    """
    counted = _has_relevant(top, users, relevant, cutoffs)
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
    """Measure the catalogue that the lists of all users show together.

    Takes the arguments of `evaluate`, and leaves out the same users. Of the set of distinct items
    in any of their lists (cut at `cutoff`),

    - `coverage@cutoff` is its share of the catalogue;
    - `mmr@cutoff` is the median of its items' popularity, with each item counted once however often
      it is recommended: MMR of the HLR paper (Tran et al. 2021), as the published code computes
      it for each cohort of users; 0 if all lists are empty. It falls with the number of users, so
      compare groups of one size. `evaluate` has the median of each user's own list.
    """
    found = recommended(top, users, relevant, cutoffs)
    return of_recommended(found, popularity, cutoffs)


def recommended(
    top: Int[np.ndarray, "U k"],
    users: Int[np.ndarray, "U"],
    relevant: Interactions,
    cutoffs: Sequence[int],
) -> Bool[np.ndarray, "cutoffs I"]:
    """Find which items are in any list of a user with relevant items, cut at each cutoff."""
    counted = _has_relevant(top, users, relevant, cutoffs)
    found = np.zeros((len(cutoffs), relevant.num_items + 1), bool)  # the last place takes the -1
    for of_cutoff, cutoff in zip(found, cutoffs, strict=True):
        of_cutoff[top[counted, :cutoff]] = True
    return found[:, :-1]


def of_recommended(
    found: Bool[np.ndarray, "cutoffs I"],
    popularity: Int[np.ndarray, "I"],
    cutoffs: Sequence[int],
) -> dict[str, float]:
    """Compute the values of `catalogue` from the output of `recommended`.

    Several processes can share the lists: combine their outputs by a logical or.
    """
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
    """Rank each user's positive item among the negatives drawn for it, from 1.

    A negative with the same score (or with a NaN on either side) is ranked before the positive,
    so that a model gains nothing by giving all items the same score.

    Args:
      positive_scores: `[U]`.
      negative_scores: `[U, n]`.
      ignored: `[U, n]` negatives to leave out. Files of drawn negatives may list the positive
        item itself (NCF's MovieLens file does): pass `negatives == positives[:, None]`.
    """
    before = ~(negative_scores < positive_scores[:, None])
    if ignored is not None:
        before &= ~ignored
    return 1 + before.sum(1)


def evaluate_sampled(ranks: Int[np.ndarray, "U"], cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Compute `hit_rate`, `ndcg` and `mrr` from the rank of each user's one positive item.

    With one relevant item these are `[rank <= k]`, `[rank <= k] / log2(rank + 1)` and
    `[rank <= k] / rank` (HR and NDCG of He et al. 2017). They can only be compared with
    numbers on the same negatives.

    Args:
      ranks: `[U]` from 1, see `sampled_ranks`.
      cutoffs: list lengths to evaluate.

    Returns:
      `"name@cutoff"` to `[U]`.
    """
    if not len(ranks):
        raise InputError("no user has a test item to rank among negatives")
    values = {}
    for cutoff in cutoffs:
        found = ranks[:, None] == np.arange(1, cutoff + 1)
        for name in OF_ONE_POSITIVE:
            values[f"{name}@{cutoff}"] = METRICS[name](found, np.ones_like(ranks))
    return values


def _median_popularity(
    top: Int[np.ndarray, "U k"], popularity: Int[np.ndarray, "I"]
) -> Float[np.ndarray, "U"]:
    """Compute the median popularity of the items of each list; NaN for an empty one."""
    values = np.sort(np.where(top >= 0, popularity[top], np.inf), axis=1)
    count = (top >= 0).sum(1)
    # Both are the same place for odd counts.
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2], axis=1)
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


def _has_relevant(
    top: np.ndarray, users: np.ndarray, relevant: Interactions, cutoffs: Sequence[int]
) -> np.ndarray:
    """Find the lists of users with relevant items, after checks of the arguments."""
    _check_ids(top, users, relevant)
    wanted = min(max(cutoffs), relevant.num_items)
    if top.shape[1] < wanted:
        raise InputError(
            f"config.evaluation.cutoffs={tuple(cutoffs)}: the lists hold {top.shape[1]} items,"
            f" rank {wanted}"
        )
    has_relevant = relevant.counts[users] > 0
    if len(users) and not has_relevant.any():
        raise InputError("no user of the lists has a relevant item: there is nothing to evaluate")
    return has_relevant

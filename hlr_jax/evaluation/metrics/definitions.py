"""Ranking metrics: the standard ones, and the papers' own variants under names of their own.

Each metric is a function of `hits [U, k]`, which places of each user's list hold a relevant item,
and of `num_relevant [U]`, the number of relevant items of each user (at least 1); it returns one
number for each user. `k` is the cutoff: a shorter list is filled up with misses. In the formulas
`h_r` is 1 for a hit at rank `r = 1..k`, else 0, and `n` is the number of relevant items.

All of them are better when larger. A value of NaN leaves the user out of the mean.
"""

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from hlr_jax.errors import InputError


def recall(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute `sum_r h_r / n`, the share of a user's relevant items that are in the list."""
    return hits.sum(1) / num_relevant


def recall_capped(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute `sum_r h_r / min(k, n)`, the recall that a perfect list has 1 of, however short.

    It is the Recall@k of Liang et al. (WWW 2018, section 4.2) and of those who follow its protocol;
    "capped recall" in BEIR (Thakur et al., NeurIPS 2021). It is recall where `n <= k`.
    """
    return hits.sum(1) / np.minimum(num_relevant, hits.shape[1])


def precision(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute `sum_r h_r / k`, the share of the list that is relevant; empty places are misses."""
    return hits.sum(1) / hits.shape[1]


def hit_rate(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Return 1 for each list with a relevant item, else 0."""
    return np.where(hits.any(1), 1.0, 0.0)


def mrr(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the reciprocal rank `1 / r` of the first hit, 0 without one (TREC's recip_rank)."""
    return np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)


def ndcg(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the normalised discounted cumulative gain (NDCG).

    The gain `sum_r h_r / log2(r + 1)`, divided by that of the best possible list, whose first
    `min(k, n)` places are relevant (Järvelin and Kekäläinen 2002, binary gains; TREC's ndcg_cut;
    "global" NDCG in the HLR paper's code).
    """
    gain = _gains(hits.shape[1])
    ideal = np.cumsum(gain)[np.minimum(num_relevant, hits.shape[1]) - 1]
    return hits @ gain / ideal


def average_precision(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the average precision of the list, `sum_r h_r * precision@r / min(k, n)`.

    Divided by the most hits that a list of `k` can have, so that a perfect list scores 1.
    (TREC's map_cut divides by `n`, `map_list_length` by `k`.)
    """
    return _summed_precision(hits) / np.minimum(num_relevant, hits.shape[1])


def ndcg_local(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the HLR paper's "local" NDCG, against the same list in its ideal order.

    `sum_r h_r / log2(r + 1)`, divided by `sum_{r <= number of hits} 1 / log2(r + 1)`: relevant
    items that are not in the list do not lower it. NaN (left out of the mean) without a hit.
    (Tran et al. 2021, as in the published code.)
    """
    gain = _gains(hits.shape[1])
    number = hits.sum(1)
    ideal = np.concatenate([[np.nan], np.cumsum(gain)])[number]
    return hits @ gain / ideal


def mrr_all_hits(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the HLR paper's MRR, `sum_r h_r / r` over all hits; it may be larger than 1.

    (Tran et al. 2021, as in the published code.)
    """
    return hits @ (1 / np.arange(1, hits.shape[1] + 1))


def map_list_length(
    hits: Bool[np.ndarray, "U k"], num_relevant: Int[np.ndarray, "U"]
) -> Float[np.ndarray, "U"]:
    """Compute the HLR paper's MAP, `sum_r h_r * precision@r / k`, with the list's length `k`.

    (Tran et al. 2021, as in the published code.)
    """
    return _summed_precision(hits) / hits.shape[1]


# From hits [U, k] and the number of relevant items [U] to a number for each user.
Metric = Callable[[Bool[np.ndarray, "U k"], Int[np.ndarray, "U"]], Float[np.ndarray, "U"]]

METRICS: dict[str, Metric] = {
    "ndcg": ndcg,
    "recall": recall,
    "recall_capped": recall_capped,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "map": average_precision,
    "ndcg_local": ndcg_local,
    "mrr_all_hits": mrr_all_hits,
    "map_list_length": map_list_length,
}


def parse(name: str, field: str = "config.training.selection_metric") -> tuple[str, int]:
    """Split the name of a metric and its cutoff, as `"ndcg@10"` into `("ndcg", 10)`.

    Args:
      name: a name of `METRICS`, `@` and a cutoff of at least 1.
      field: which flag or field gave the name, for the error.

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


def _gains(length: int) -> Float[np.ndarray, "k"]:
    return 1 / np.log2(np.arange(2, length + 2))


def _summed_precision(hits: Bool[np.ndarray, "U k"]) -> Float[np.ndarray, "U"]:
    precision_at = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision_at * hits).sum(1)

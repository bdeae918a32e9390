"""Metrics of ranked lists: definitions, evaluation user by user, summaries over users, tests.

`hlr_jax.evaluation.ranking` makes the lists.
"""

from hlr_jax.evaluation.metrics.definitions import (
    METRICS,
    average_precision,
    hit_rate,
    map_list_length,
    mrr,
    mrr_all_hits,
    ndcg,
    ndcg_local,
    parse,
    precision,
    recall,
    recall_capped,
)
from hlr_jax.evaluation.metrics.legend import is_standard, legend
from hlr_jax.evaluation.metrics.lists import (
    OF_ONE_POSITIVE,
    catalogue,
    evaluate,
    evaluate_sampled,
    hits,
    of_recommended,
    recommended,
    sampled_ranks,
)
from hlr_jax.evaluation.metrics.significance import PairedTest, holm, paired_t_test
from hlr_jax.evaluation.metrics.summary import cohort_rows, summarize

__all__ = [
    "METRICS",
    "OF_ONE_POSITIVE",
    "PairedTest",
    "average_precision",
    "catalogue",
    "cohort_rows",
    "evaluate",
    "evaluate_sampled",
    "hit_rate",
    "hits",
    "holm",
    "is_standard",
    "legend",
    "map_list_length",
    "mrr",
    "mrr_all_hits",
    "ndcg",
    "ndcg_local",
    "of_recommended",
    "paired_t_test",
    "parse",
    "precision",
    "recall",
    "recall_capped",
    "recommended",
    "sampled_ranks",
    "summarize",
]

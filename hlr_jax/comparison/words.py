"""Write metrics, numbers and outcomes of tests as people do."""

import re

_METRICS = {
    "ndcg": "NDCG",
    "hit_rate": "HR",
    "mrr": "MRR",
    "map": "MAP",
    "recall_capped": "capped recall",
}


def metric_name(metric: str) -> str:
    """Write a metric: `NDCG@10`."""
    name, _, cutoff = metric.partition("@")
    return f"{_METRICS.get(name, name)}@{cutoff}"


def decimal(value: float, digits: int = 4) -> str:
    """Write a number without the zero before its point."""
    return re.sub(r"\b0\.", ".", f"{value:.{digits}f}")


def signed(value: float) -> str:
    """Write a number with its sign, as differences are."""
    return ("-" if value < 0 else "+") + decimal(abs(value))


def p_value(value: float) -> str:
    """Write a p-value with the sign before it: `= .016`, `< .001`."""
    return "< .001" if value < 0.001 else f"= {decimal(value, 3)}"

"""Summarise the runs of a protocol: means over seeds, and differences over users."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.accuracy.entries import Protocol
from benchmarks.accuracy.records import user_values
from hlr_jax.evaluation.metrics import paired_t_test


def over_seeds(record: Mapping[str, Any], metric: str) -> dict[str, float | None]:
    """Compute mean and sample standard deviation of a test metric; None for a single run."""
    values = [run["test"][metric] for run in record["runs"].values()]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


# The label of CML that models are compared with, where it is not their own.
CML_OF = {"recent": "tuned-full"}


def summary(protocol: Protocol, results: Mapping[str, Any]) -> dict[str, Any]:
    """Compute everything that tables and plots show, in the protocol's order.

    Returns:
      `best_peer`: the key of the baseline that is best on test, None without baselines.
      `rows`: by key, `seeds`, and by metric what `over_seeds` has; and what `paired_t_test` has of
      the main metric `against_best_peer` (all but that) and `against_cml` (models of the same
      label, or of that in `CML_OF`).
    """
    stored = results["entries"]
    present = [entry for entry in protocol.entries if entry.key in stored]
    rows: dict[str, Any] = {}
    for entry in present:
        record = stored[entry.key]
        rows[entry.key] = {"seeds": [int(seed) for seed in record["runs"]]} | {
            metric: over_seeds(record, metric) for metric in protocol.metrics
        }
    peers = [entry.key for entry in present if entry.label == "baseline"]
    main = protocol.metrics[0]
    best = max(peers, key=lambda key: rows[key][main]["mean"], default=None)
    values = {key: user_values(stored[key]) for key in rows}
    for entry in present:
        key, cml = entry.key, f"cml-{CML_OF.get(entry.label, entry.label)}"
        if best not in (None, key):
            rows[key]["against_best_peer"] = _paired(values[key], values[best])
        if cml in values and cml != key:
            rows[key]["against_cml"] = _paired(values[key], values[cml])
    return {"best_peer": best, "rows": rows}


def _paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compute a paired t-test, as JSON."""
    test = paired_t_test(ours, theirs)
    return test._asdict() | {"interval": list(test.interval)}

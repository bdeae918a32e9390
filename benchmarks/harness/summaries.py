"""What the runs of a protocol say: means over seeds, and differences over users."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from harness.contenders import Protocol
from harness.records import user_values


def paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Student's paired t-test, two-sided, of the same users' values.

    Args:
      ours: `[users]`, at least two.
      theirs: `[users]` the same users, in the same order.

    Returns:
      `difference`, the mean of ours less theirs; its 95 % `interval`; `p_value`, 1 where all
      differences are 0.
    """
    differences = ours - theirs
    mean = float(differences.mean())
    if (differences == differences[0]).all():
        # Without variance there is no t.
        return {
            "difference": mean,
            "interval": [mean, mean],
            "p_value": 1.0 if mean == 0 else 0.0,
        }
    test = scipy.stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(0.95)
    return {
        "difference": mean,
        "interval": [float(low), float(high)],
        "p_value": float(test.pvalue),
    }


def over_seeds(entry: Mapping[str, Any], metric: str) -> dict[str, float | None]:
    """Mean and sample standard deviation of a test metric; of one run, no deviation."""
    values = [run["test"][metric] for run in entry["runs"].values()]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


def summary(protocol: Protocol, results: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that tables and plots show, in the protocol's order.

    Returns:
      `best_peer`: the key of the baseline that is best on test, None without baselines.
      `rows`: by key, `seeds`, and by metric what `over_seeds` has; and what `paired` has of the
      main metric `against_best_peer` (all but that) and `against_cml` (models of the same label).
    """
    entries = results["contenders"]
    present = [contender for contender in protocol.contenders if contender.key in entries]
    rows: dict[str, Any] = {}
    for contender in present:
        entry = entries[contender.key]
        rows[contender.key] = {"seeds": [int(seed) for seed in entry["runs"]]} | {
            metric: over_seeds(entry, metric) for metric in protocol.metrics
        }
    peers = [contender.key for contender in present if contender.label == "baseline"]
    main = protocol.metrics[0]
    best = max(peers, key=lambda key: rows[key][main]["mean"], default=None)
    values = {key: user_values(entries[key]) for key in rows}
    for contender in present:
        key, cml = contender.key, f"cml-{contender.label}"
        if best not in (None, key):
            rows[key]["against_best_peer"] = paired(values[key], values[best])
        if cml in values and cml != key:
            rows[key]["against_cml"] = paired(values[key], values[cml])
    return {"best_peer": best, "rows": rows}

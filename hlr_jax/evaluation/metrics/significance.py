"""Test whether differences between models, user by user, are more than chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float


class PairedTest(NamedTuple):
    """What a paired t-test says.

    Attributes:
      difference: the mean of ours minus theirs.
      interval: of 95 % for the difference.
      p_value: two-sided, not corrected; 1 where all differences are 0.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def paired_t_test(
    ours: Float[np.ndarray, "users"], theirs: Float[np.ndarray, "users"]
) -> PairedTest:
    """Compute Student's two-sided paired t-test of the same users' values.

    `t = mean(d) / (s(d) / sqrt(n))` of the differences `d`, with `n - 1` degrees of freedom
    (Student, "The probable error of a mean", Biometrika 1908).

    Args:
      ours: `[users]`, at least two.
      theirs: `[users]` the same users, in the same order.
    """
    differences = ours - theirs
    mean = float(differences.mean())
    if (differences == differences[0]).all():
        # Without variance there is no t.
        return PairedTest(mean, (mean, mean), 1.0 if mean == 0 else 0.0)
    test = scipy.stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(0.95)
    return PairedTest(mean, (float(low), float(high)), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that below 5 % none of them is wrong in 95 %.

    The i-th smallest of n is multiplied by `n - i + 1`; none may be smaller than one before it,
    nor larger than 1 (Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 1979).
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected

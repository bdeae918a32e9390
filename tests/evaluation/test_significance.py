"""Tests of significance, by hand and against SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from hlr_jax.evaluation.metrics import holm, paired_t_test


def test_the_paired_test_is_students_by_hand():
    rng = np.random.default_rng(0)
    theirs = rng.random(40)
    ours = theirs + rng.normal(0.05, 0.1, 40)
    found = paired_t_test(ours, theirs)
    differences = [float(a) - float(b) for a, b in zip(ours, theirs, strict=True)]
    mean = sum(differences) / 40
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 39 / 40)
    assert found.difference == pytest.approx(mean)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(mean / error), 39))
    half = stats.t.ppf(0.975, 39) * error
    assert found.interval == pytest.approx((mean - half, mean + half))


def test_the_paired_test_is_scipys_and_has_a_sign():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(30), rng.random(30)
    found, other = paired_t_test(ours, theirs), paired_t_test(theirs, ours)
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert other.difference == pytest.approx(-found.difference)
    assert other.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_equal_differences_have_no_t():
    same = np.array([0.1, 0.7, 0.3])
    assert paired_t_test(same, same) == (0.0, (0.0, 0.0), 1.0)
    one = np.array([1.0, 2.0, 3.0])
    assert paired_t_test(one + 1, one) == (1.0, (1.0, 1.0), 0.0)


def test_holms_correction_by_hand():
    # Sorted: .005, .01, .03, .04, times 4, 3, 2, 1: .02, .03, .06, .04, and the last not below .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Ties are treated alike, and nothing is above 1.
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(some.lists(some.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_rejects_step_by_step(p_values):
    """What the procedure rejects at a level is what has a corrected value of at most that."""
    level = 0.05
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] * (len(p_values) - step) > level:
            break
        rejected.add(place)
    corrected = holm(p_values)
    assert {place for place, p in enumerate(corrected) if p <= level} == rejected

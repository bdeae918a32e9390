"""Integers below a bound: against Python's integers, and how often each comes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.interactions import assert_distributed

from hlr_jax.sampling.random import uniform_below

HALF, WORD = 2**16, 2**32


def test_uniform_below_is_the_upper_word_of_the_product(monkeypatch):
    """Words and bounds at which a carry may be lost, and random ones."""
    edges = [0, 1, 2, HALF - 1, HALF, HALF + 1, WORD // 2 - 1, WORD // 2, WORD - HALF, WORD - 1]
    bounds = [1, 2, 3, 7, HALF - 1, HALF, HALF + 1, 3 * HALF + 5]
    bounds += [10**6, 2**30, 2**31 - 2, 2**31 - 1]
    rng = np.random.default_rng(0)
    words = np.concatenate(
        [
            np.array(list(itertools.product(edges, edges)), np.uint32),
            rng.integers(WORD, size=(3000, 2), dtype=np.uint32),
        ]
    )
    bounds = np.array([*bounds, *rng.integers(1, 2**31, size=40)], np.int32)
    words = np.broadcast_to(words[:, None], (len(words), len(bounds), 2))
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.asarray(words, dtype))
    drawn = uniform_below(jax.random.key(0), jnp.asarray(bounds)[None], words.shape[:-1])
    high, low = np.moveaxis(words, -1, 0).astype(object)
    expected = (high * WORD + low) * bounds.astype(object) >> 64
    assert drawn.dtype == jnp.int32
    np.testing.assert_array_equal(drawn, expected.astype(np.int64))


@pytest.mark.parametrize("bound", [2, 3, 7, 10])
def test_numbers_below_a_bound_are_uniform(bound):
    drawn = uniform_below(jax.random.key(bound), jnp.asarray(bound, jnp.int32), (20_000,))
    counts = np.bincount(drawn, minlength=bound)
    assert len(counts) == bound
    assert_distributed(counts, np.full(bound, 1 / bound))


def test_bounds_may_differ_from_draw_to_draw():
    bounds = jnp.asarray([1, 5, 2**31 - 1], jnp.int32)
    draws = np.asarray(uniform_below(jax.random.key(4), bounds[None], (5_000, 3)))
    assert (draws >= 0).all()
    assert (draws < np.asarray(bounds)).all()
    assert set(draws[:, 1]) == set(range(5))
    # The mean of a uniform distribution, to five standard deviations.
    assert abs(draws[:, 2].mean() / (2**31 - 1) - 0.5) < 5 / np.sqrt(12 * 5_000)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 2])[0, 1]) < 0.1

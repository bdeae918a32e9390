"""Integers below a bound: against Python's integers, and how often each comes."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from support.interactions import assert_distributed

from hlr_jax.sampling.random import permuted, taken_at_once, taken_in_turn, uniform_below

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


# --- permutations --------------------------------------------------------------------------------

PERMUTED = jax.jit(permuted)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1001])
def test_every_place_of_a_part_is_taken_once(size):
    places, sizes = jnp.arange(size), jnp.array([size])
    found = PERMUTED(jax.random.key(size), places, jnp.zeros(size, jnp.int32), sizes)
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


def test_all_permutations_are_equally_likely():
    keys, part = jax.random.split(jax.random.key(1), 24_000), jnp.zeros(4, jnp.int32)
    draw = jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(4), part, jnp.array([4]))))
    found, counts = np.unique(np.asarray(draw(keys)), axis=0, return_counts=True)
    assert len(found) == 24
    assert_distributed(counts, np.full(24, 1 / 24))


def test_two_places_go_anywhere_else_independently():
    size, keys = 10, jax.random.split(jax.random.key(2), 36_000)
    part, places = jnp.zeros(2, jnp.int32), jnp.array([3, 4])
    draw = jax.jit(jax.vmap(lambda key: permuted(key, places, part, jnp.array([size]))))
    pairs = np.asarray(draw(keys))
    counts = np.bincount(pairs[:, 0] * size + pairs[:, 1], minlength=size * size)
    allowed = ~np.eye(size, dtype=bool).ravel()
    assert not counts[~allowed].any()
    assert_distributed(counts[allowed], np.full(90, 1 / 90))


def test_parts_are_permuted_by_themselves_and_otherwise():
    part = jnp.repeat(jnp.arange(2), 50)
    places = jnp.tile(jnp.arange(50), 2)
    found = PERMUTED(jax.random.key(3), places, part, jnp.array([50, 50])).reshape(2, 50)
    np.testing.assert_array_equal(np.sort(found), np.tile(np.arange(50), (2, 1)))
    assert (found[0] == found[1]).mean() < 0.2


# --- subsets without a loop ----------------------------------------------------------------------


TURNS = 64
AT_ONCE, IN_TURN = jax.jit(taken_at_once), jax.jit(taken_in_turn)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_what_is_taken_at_once_is_what_is_taken_in_turn(beyond, seed):
    """Few numbers beyond the turns make long chains of numbers that are taken already."""
    last = beyond + np.arange(TURNS, dtype=np.int32)
    draws = np.random.default_rng(seed).integers(0, last + 1).astype(np.int32)
    found = AT_ONCE(draws, last)
    np.testing.assert_array_equal(found, IN_TURN(draws, last))
    assert len(set(found.tolist())) == TURNS

"""The rank weight of WARP, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike

from hlr_jax.functional import rank_weight

weight_of = jax.jit(rank_weight, static_argnames="num_items")


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def of_all(hinge: ArrayLike, num_items: int) -> jax.Array:
    """Where every negative counts."""
    rows = f32(hinge)
    return rank_weight(rows, num_items, jnp.full(len(rows), rows.shape[1], jnp.int32))


def test_rank_weight_is_exact_for_many_negatives_of_which_some_count() -> None:
    """Products of the numbers involved pass 2^31."""
    negatives, num_items = 70_000, 131_000
    for impostors, counted in ((1, 70_000), (65_536, 66_000), (70_000, 70_000), (999, 1000)):
        hinge = jnp.where(jnp.arange(negatives) < impostors, 1.0, 0.0)[None]
        weight = weight_of(hinge, num_items, jnp.asarray([counted], jnp.int32))
        np.testing.assert_allclose(weight, [np.log1p(num_items * impostors // counted)], rtol=1e-6)


@pytest.mark.parametrize("num_negatives", [1, 3, 7, 20])
def test_rank_weight_is_of_the_exact_integer_rank(num_negatives: int) -> None:
    """Every number of impostors; a rank off by one would show after rounding."""
    for num_items in (5, 20, 1682, 9999):
        impostors = np.arange(num_negatives + 1)
        values = np.random.default_rng(0).uniform(0, 4, (1, num_negatives))
        hinge = (np.arange(num_negatives) < impostors[:, None]) * values
        weight = np.asarray(of_all(hinge, num_items), np.float64)
        ranks = num_items * impostors // num_negatives
        np.testing.assert_array_equal(np.rint(np.expm1(weight)), ranks)
        expected = [oracles.warp_weight(int(n), num_negatives, num_items) for n in impostors]
        np.testing.assert_allclose(weight, expected, rtol=1e-6)


@pytest.mark.parametrize("num_negatives", [20, 1000])
def test_rank_weight_of_a_huge_catalogue_does_not_overflow(num_negatives: int) -> None:
    num_items = 2_000_000_011
    expected = oracles.warp_weight(num_negatives, num_negatives, num_items)
    found = of_all(np.ones((1, num_negatives)), num_items)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_an_impostor_is_strictly_within_the_margin() -> None:
    hinge = [[0, 0, 0, 0], [0, 1e-6, 0, 3]]
    np.testing.assert_allclose(of_all(hinge, 100), [0, np.log1p(50)], rtol=1e-6)


def test_without_a_negative_that_counts_the_weight_is_zero() -> None:
    weight = rank_weight(jnp.zeros((2, 3)), 100, jnp.zeros(2, jnp.int32))
    np.testing.assert_array_equal(weight, 0)


@given(
    hinge=hnp.arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 2.0])),
    num_items=st.integers(1, 10**6),
)
def test_rank_weight_times_the_largest_hinge_is_the_oracle_s(
    hinge: np.ndarray, num_items: int
) -> None:
    found = of_all(hinge, num_items) * jnp.max(f32(hinge), axis=1)
    margin = 4.0
    for row, value in zip(hinge, np.asarray(found), strict=True):
        expected, _ = oracles.loss_of_row(
            "warp", 0.0, margin - row, margin=margin, num_items=num_items
        )
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_rank_weight_is_a_constant_in_the_gradient() -> None:
    hinge = f32(np.random.default_rng(0).uniform(0, 4, (4, 3))) - 1
    np.testing.assert_array_equal(jax.grad(lambda h: of_all(h, 50).sum())(hinge), 0)

    def weighted(hinge: jax.Array) -> jax.Array:
        return (of_all(hinge, 50) * hinge.max(axis=1)).sum()

    weight = np.asarray(of_all(hinge, 50))
    expected = np.where(hinge == hinge.max(axis=1, keepdims=True), weight[:, None], 0)
    np.testing.assert_array_equal(jax.grad(weighted)(hinge), expected)

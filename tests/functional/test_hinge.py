"""Losses of margins, the rank weight and the covariance penalty, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from numpy.typing import ArrayLike

from hlr_jax.functional import (
    closest_hinge,
    contrastive,
    covariance_divergence,
    covariance_penalty,
    rank_weight,
    semi_hard_hinge,
    squared_margin,
    triplet_hinge,
    two_sided_hinge,
)


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 4, size=shape)


# --- hinge ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_negatives", [1, 3, 10])
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_hinge_matches_the_oracle(margin: float, num_negatives: int) -> None:
    positive, negatives = uniform(0, 6), uniform(1, 6, num_negatives)
    hinge = triplet_hinge(f32(positive), f32(negatives), margin)
    assert hinge.shape == negatives.shape
    assert np.count_nonzero(hinge) not in (0, hinge.size)
    for b in range(6):
        for k in range(num_negatives):
            expected = oracles.hinge_loss(
                positive[b : b + 1], negatives[b : b + 1, k, None], margin
            )
            np.testing.assert_allclose(hinge[b, k], expected, rtol=1e-5, atol=1e-6)
    total = oracles.hinge_loss(positive, negatives, margin)
    np.testing.assert_allclose(jnp.sum(hinge), total, rtol=1e-5)
    mean = oracles.hinge_loss(positive, negatives, margin, reduction="mean")
    np.testing.assert_allclose(jnp.mean(hinge), mean, rtol=1e-5)


def test_hinge_of_one_row_and_of_more_batch_axes() -> None:
    positive, negatives = f32(uniform(0, 2, 3)), f32(uniform(1, 2, 3, 4))
    hinge = triplet_hinge(positive, negatives, 0.5)
    np.testing.assert_array_equal(triplet_hinge(positive[1, 2], negatives[1, 2], 0.5), hinge[1, 2])


def test_hinge_is_zero_with_zero_gradient_at_and_beyond_the_margin() -> None:
    """The positive may be exactly a margin closer."""
    positive, negatives = f32([1.0]), f32([[1.0, 1.25, 1.5, 1.75, 10.0]])
    hinge = triplet_hinge(positive, negatives, 0.5)
    np.testing.assert_array_equal(hinge, [[0.5, 0.25, 0, 0, 0]])
    gradients = jax.grad(lambda p, n: triplet_hinge(p, n, 0.5).sum(), (0, 1))(positive, negatives)
    np.testing.assert_array_equal(gradients[0], [2])
    np.testing.assert_array_equal(gradients[1], [[-1, -1, 0, 0, 0]])


def test_hinge_gradients() -> None:
    with jax.enable_x64(True):
        positive, negatives = jnp.asarray(uniform(0, 5)), jnp.asarray(uniform(1, 5, 3))
        distance_to_kink = np.abs(positive[:, None] - negatives + 0.5).min()
        assert distance_to_kink > 1e-3
        hinge = jax.jit(lambda p, n: triplet_hinge(p, n, 0.5))
        check_grads(hinge, (positive, negatives), 1, ("fwd", "rev"))


# --- losses of a row: the closest, a semi-hard one, both sides, squares ---------------------------

ROW_LOSSES = {
    "closest": lambda p, n, margin: closest_hinge(triplet_hinge(p, n, margin)),
    "semi_hard": semi_hard_hinge,
    "two_sided": lambda p, n, margin: two_sided_hinge(p, n, margin).sum(axis=-1),
    "squared": squared_margin,
    "contrastive": lambda p, n, margin: contrastive(p, n, margin, 100.0),
}


@pytest.mark.parametrize("name", ROW_LOSSES)
@pytest.mark.parametrize("num_negatives", [1, 3, 10])
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_losses_of_rows_match_the_oracle(margin: float, num_negatives: int, name: str) -> None:
    """Some negatives are infinitely far away: as if they were not there."""
    positive, negatives = uniform(0, 40), uniform(1, 40, num_negatives)
    counts = np.random.default_rng(2).random(negatives.shape) < 0.7
    hidden = np.where(counts, negatives, np.inf)
    losses = ROW_LOSSES[name](f32(positive), f32(hidden), margin)
    assert losses.shape == (40,)
    expected = [
        oracles.loss_of_row(name, positive[b], negatives[b, counts[b]].tolist(), margin)[0]
        for b in range(40)
    ]
    assert max(expected) > 0
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_a_semi_hard_negative_is_farther_than_the_positive_if_one_is() -> None:
    """By hand: the next after the positive, strictly; without any, the closest of all."""
    inf = np.inf
    negatives = f32([[0.5, 1.25, 1.5], [1, 1, 2], [0.75, 0.25, 0.5], [0.5, inf, inf], [inf] * 3])
    hinges = semi_hard_hinge(f32([1, 1, 1, 1, 1]), negatives, 0.5)
    np.testing.assert_array_equal(hinges, [0.25, 0, 1.25, 1, 0])


def test_the_closest_hinge_is_of_one_negative_alone() -> None:
    def closest(positive: jax.Array, negatives: jax.Array) -> jax.Array:
        return closest_hinge(triplet_hinge(positive, negatives, 0.5)).sum()

    negatives = f32([[0.75, 0.25, 1.0], [2, 3, 4], [np.inf, 1, np.inf]])
    found = jax.value_and_grad(closest, (0, 1))(f32([1, 1, 1]), negatives)
    np.testing.assert_array_equal(found[0], 1.25 + 0 + 0.5)
    np.testing.assert_array_equal(found[1][0], [1, 0, 1])
    np.testing.assert_array_equal(found[1][1], [[0, -1, 0], [0, 0, 0], [0, -1, 0]])


def test_a_gap_counts_on_both_sides_of_the_margin() -> None:
    """By hand: a gap of the margin is best; more is as bad as less."""
    positive, negatives = f32([1, 1, 1, 1]), f32([[1.5, 9], [2, 9], [1.25, 1.5], [np.inf] * 2])
    found = two_sided_hinge(positive, negatives, 0.5)
    np.testing.assert_array_equal(found, [[0, 7.5], [0.5, 7.5], [0.25, 0], [0, 0]])
    found = squared_margin(positive, negatives, 0.5)
    np.testing.assert_array_equal(found, [7.5**2 / 2, (0.25 + 7.5**2) / 2, 0.0625 / 2, 0])


@pytest.mark.parametrize("name", ["hinge", *ROW_LOSSES])
def test_gradients_of_hinges_are_those_of_the_oracle_and_finite(name: str) -> None:
    """The last row has no negative that counts, the one before it none that is farther."""
    positive, negatives = uniform(3, 7), uniform(4, 7, 5)
    negatives[5] = positive[5] - uniform(5, 5) / 8
    counts = np.random.default_rng(6).random(negatives.shape) < 0.7
    counts[6] = False
    assert counts[5].any()

    def expected(point: dict[str, np.ndarray]) -> float:
        return sum(
            oracles.loss_of_row(name, p, n[c].tolist())[0]
            for p, n, c in zip(point["positive"], point["negatives"], counts, strict=True)
        )

    def total(positive: jax.Array, negatives: jax.Array) -> jax.Array:
        hidden = jnp.where(counts, negatives, jnp.inf)
        loss = ROW_LOSSES.get(name, triplet_hinge)
        return loss(positive, hidden, 0.5).sum()

    by_differences = oracles.numerical_gradient(
        expected, {"positive": positive, "negatives": negatives}
    )
    with jax.enable_x64(True):
        found = jax.grad(total, (0, 1))(jnp.asarray(positive), jnp.asarray(negatives))
    for x, y in zip(found, by_differences.values(), strict=True):
        assert np.abs(y).max() > 0.9
        np.testing.assert_allclose(x, y, atol=1e-8)
        assert (np.asarray(x)[6] == (name == "contrastive" and x.ndim == 1)).all()


# --- rank weight ---------------------------------------------------------------------------------


def test_rank_weight_is_exact_for_many_negatives_of_which_some_count() -> None:
    """Products of the numbers involved pass 2^31."""
    negatives, num_items = 70_000, 131_000
    for impostors, counted in ((1, 70_000), (65_536, 66_000), (70_000, 70_000), (999, 1000)):
        hinge = jnp.where(jnp.arange(negatives) < impostors, 1.0, 0.0)[None]
        weight = rank_weight(hinge, num_items, jnp.asarray([counted], jnp.int32))
        np.testing.assert_allclose(weight, [np.log1p(num_items * impostors // counted)], rtol=1e-6)


@pytest.mark.parametrize("num_negatives", [1, 3, 7, 20])
@pytest.mark.parametrize("num_items", [5, 20, 1682, 9999])
def test_rank_weight_is_of_the_exact_integer_rank(num_items: int, num_negatives: int) -> None:
    """Every number of impostors; a rank off by one would show after rounding."""
    impostors = np.arange(num_negatives + 1)
    hinge = (np.arange(num_negatives) < impostors[:, None]) * uniform(0, 1, num_negatives)
    weight = np.asarray(rank_weight(f32(hinge), num_items), np.float64)
    ranks = num_items * impostors // num_negatives
    np.testing.assert_array_equal(np.rint(np.expm1(weight)), ranks)
    expected = [oracles.rank_weight_of(int(n), num_negatives, num_items) for n in impostors]
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


@pytest.mark.parametrize("num_negatives", [20, 1000])
def test_rank_weight_of_a_huge_catalogue_does_not_overflow(num_negatives: int) -> None:
    num_items = 2_000_000_011
    hinge = jnp.ones((1, num_negatives))
    expected = oracles.rank_weight_of(num_negatives, num_negatives, num_items)
    np.testing.assert_allclose(rank_weight(hinge, num_items), [expected], rtol=1e-6)


def test_an_impostor_is_strictly_within_the_margin() -> None:
    hinge = f32([[0, 0, 0, 0], [0, 1e-6, 0, 3]])
    np.testing.assert_allclose(rank_weight(hinge, 100), [0, np.log1p(50)], rtol=1e-6)


@given(
    hinge=hnp.arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 2.0])),
    num_items=st.integers(1, 10**6),
)
def test_rank_weight_and_closest_negative_match_the_oracle(
    hinge: np.ndarray, num_items: int
) -> None:
    """`weight * max` summed over rows is the oracle's loss for these hinges."""
    weight = rank_weight(f32(hinge), num_items)
    total = jnp.sum(weight * jnp.max(f32(hinge), axis=1))
    margin = 4.0
    expected = oracles.hinge_loss(
        np.zeros(4), margin - hinge, margin, rank_weight=True, num_items=num_items
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_rank_weight_is_a_constant_in_the_gradient() -> None:
    hinge = f32(uniform(0, 4, 3)) - 1
    np.testing.assert_array_equal(jax.grad(lambda h: rank_weight(h, 50).sum())(hinge), 0)

    def weighted(hinge: jax.Array) -> jax.Array:
        return (rank_weight(hinge, 50) * hinge.max(axis=1)).sum()

    weight = np.asarray(rank_weight(hinge, 50))
    expected = np.where(hinge == hinge.max(axis=1, keepdims=True), weight[:, None], 0)
    np.testing.assert_array_equal(jax.grad(weighted)(hinge), expected)


# --- covariance penalty --------------------------------------------------------------------------


@given(
    rows=hnp.arrays(np.float32, (6, 4), elements=st.floats(-2, 2, width=32, allow_subnormal=False))
)
def test_covariance_penalty_matches_the_oracle(rows: np.ndarray) -> None:
    """The sum cancels, so the error is relative to the sum of the absolute covariances."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    scale = np.abs(centred.T @ centred / 6).sum() + 1e-6
    expected = oracles.covariance_penalty(rows, form="sum")
    assert abs(float(covariance_penalty(f32(rows))) - expected) <= 1e-5 * scale


@given(rows=hnp.arrays(np.float32, (12, 4), elements=st.floats(-1, 1, width=32)))
def test_covariance_divergence_matches_the_oracle(rows: np.ndarray) -> None:
    rows = rows + 0.1 * np.random.default_rng(0).normal(size=rows.shape)  # no dimension is still
    with jax.enable_x64(True):
        found = covariance_divergence(jnp.asarray(rows))
    np.testing.assert_allclose(found, oracles.covariance_penalty(rows, "log_det"), rtol=1e-9)


def test_covariance_divergence_is_least_at_the_identity() -> None:
    """Rows at the ends of the axes have covariance I; stretched, turned or still ones do not."""
    rows = f32(np.sqrt(3) * np.vstack([np.eye(3), -np.eye(3)]))
    np.testing.assert_allclose(covariance_divergence(rows), 0, atol=1e-5)
    assert float(covariance_divergence(rows * 1.1)) > 0.02
    assert float(covariance_divergence(rows.at[:, 1].set(rows[:, 0]))) > 5
    still = rows.at[:, 1].set(0)
    assert np.isfinite(covariance_divergence(still))
    gradient = np.asarray(jax.grad(covariance_divergence)(still / 2))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01

    # What the ball of radius 1 allows: as far as its rows reach, along all axes alike.
    least = float(covariance_divergence(f32(np.vstack([np.eye(3), -np.eye(3)]))))
    np.testing.assert_allclose(least, 1 + 3 * np.log(3) - 3, atol=1e-4)


def test_covariance_penalty_by_hand() -> None:
    """Two features: twice their covariance, also where that is negative; one feature: nothing."""
    rows = f32([[0, 0], [1, -2], [2, -4]])
    np.testing.assert_allclose(covariance_penalty(rows), 2 * (-4 / 3), rtol=1e-6)
    np.testing.assert_allclose(covariance_penalty(rows + 3), 2 * (-4 / 3), rtol=1e-5)
    np.testing.assert_allclose(covariance_penalty(rows[:, :1]), 0, atol=1e-7)


def test_covariance_penalty_gradients() -> None:
    with jax.enable_x64(True):
        rows = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
        check_grads(jax.jit(covariance_penalty), (rows,), 1, ("fwd", "rev"))
        check_grads(jax.jit(covariance_divergence), (rows,), 1, ("fwd", "rev"))
        expected = oracles.numerical_gradient(
            lambda p: oracles.covariance_penalty(p["rows"]), {"rows": rows}
        )
        np.testing.assert_allclose(jax.grad(covariance_penalty)(rows), expected["rows"], atol=1e-8)

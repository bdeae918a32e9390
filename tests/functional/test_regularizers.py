"""Penalties on whole tables, against loops and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from numpy.typing import ArrayLike

from hlr_jax.functional import covariance_divergence, covariance_penalty, uniformity


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


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


def test_uniformity_by_hand() -> None:
    """Pairs count once in each direction, points do not pair with themselves."""
    apart = f32([[9, 1, 2], [1, 9, 3], [2, 3, 9]])
    expected = np.log((np.exp(-2.0) + np.exp(-4.0) + np.exp(-6.0)) / 3)
    np.testing.assert_allclose(uniformity(apart), expected, rtol=1e-6)
    points = np.sqrt([[1.0, 0.5], [0.2, 2.0], [0.1, 0.7]])
    with jax.enable_x64(True):
        distances = jnp.square(jnp.asarray(points)[:, None] - points[None]).sum(-1)
        np.testing.assert_allclose(uniformity(distances), oracles.uniformity(points), rtol=1e-12)
    gradient = np.asarray(jax.grad(uniformity)(apart))
    np.testing.assert_array_equal(np.diag(gradient), 0)
    np.testing.assert_allclose(gradient.sum(), -2, rtol=1e-6)


def test_uniformity_of_points_far_apart_is_finite() -> None:
    np.testing.assert_allclose(uniformity(f32(np.full((4, 4), 500.0))), -1000, rtol=1e-6)

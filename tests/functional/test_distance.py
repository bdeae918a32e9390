"""Squared distances, and rows kept in a ball or given a length, against loops."""

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
    normalize,
    pairwise_squared_distances,
    project_on_ball,
    squared_distance,
)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((6,), (6,)), ((3, 6), (3, 6)), ((3, 1, 6), (3, 4, 6)), ((1, 6), (5, 6))],
)
def test_squared_distance_matches_the_oracle(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    x, y = normal(0, *x_shape), normal(1, *y_shape)
    shape = np.broadcast_shapes(x_shape, y_shape)
    all_x, all_y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    expected = np.empty(shape[:-1])
    for index in np.ndindex(shape[:-1]):
        expected[index] = oracles.squared_distance(all_x[index], all_y[index])
    actual = squared_distance(f32(x), f32(y))
    assert actual.shape == shape[:-1]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_squared_distance_of_a_row_to_itself_is_zero_with_zero_gradient() -> None:
    x = f32(normal(0, 4))
    value, gradient = jax.value_and_grad(squared_distance, (0, 1))(x, x)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_squared_distance_gradients() -> None:
    with jax.enable_x64(True):
        x, y = jnp.asarray(normal(0, 3, 1, 5)), jnp.asarray(normal(1, 3, 4, 5))
        check_grads(jax.jit(squared_distance), (x, y), 1, ("fwd", "rev"))
        rows = x[:, 0], y[0]
        check_grads(jax.jit(pairwise_squared_distances), rows, 1, ("fwd", "rev"))


FLOATS = st.floats(-2, 2, width=32, allow_subnormal=False).map(
    lambda x: 0.0 if abs(x) < 1e-6 else x
)


@given(
    table=hnp.arrays(np.float32, (7, 5), elements=FLOATS), radius=st.sampled_from([0.3, 1.0, 2.5])
)
def test_projection_matches_the_oracle(table: np.ndarray, radius: float) -> None:
    projected = np.asarray(project_on_ball(f32(table), radius))
    expected = oracles.project(table, radius)
    np.testing.assert_allclose(projected, expected, rtol=1e-5)
    norms = np.linalg.norm(projected.astype(np.float64), axis=1)
    assert (norms <= radius * (1 + 1e-6)).all()
    again = project_on_ball(f32(projected), radius)
    np.testing.assert_allclose(again, projected, rtol=1e-6)


@given(x=hnp.arrays(np.float32, (7, 5), elements=FLOATS))
def test_pairwise_distances_match_the_oracle(x: np.ndarray) -> None:
    """To rounding of the terms that they are a difference of."""
    y = normal(1, 4, 5)
    expected = oracles.pairwise(oracles.BALL, x, y)
    found = np.asarray(pairwise_squared_distances(f32(x), f32(y)))
    largest = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    assert (np.abs(found - expected) <= 1e-6 * largest).all()


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5])
def test_rows_within_the_ball_stay_bitwise(radius: float) -> None:
    directions = normal(0, 9, 5)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows = f32(directions * radius * np.linspace(0, 0.999, 9)[:, None])
    np.testing.assert_array_equal(project_on_ball(rows, radius), rows)


def test_projection_works_along_the_last_of_any_number_of_axes() -> None:
    x = f32(normal(0, 2, 3, 4))
    rows = project_on_ball(x.reshape(6, 4), 1.0)
    np.testing.assert_array_equal(project_on_ball(x, 1.0), rows.reshape(2, 3, 4))
    np.testing.assert_array_equal(project_on_ball(x[0, 0], 1.0), rows[0])


def test_a_zero_row_stays_zero_and_does_not_disturb_the_others() -> None:
    x = f32(normal(0, 3, 4)).at[1].set(0)
    projected = np.asarray(project_on_ball(x, 1.0))
    np.testing.assert_array_equal(projected[1], 0)
    np.testing.assert_allclose(projected, oracles.project(x, 1.0), rtol=1e-5)


def test_projection_gradients() -> None:
    """Rows inside and outside of the ball; at a row inside it is the identity."""
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 4, 5))
        x = x / jnp.linalg.norm(x, axis=1, keepdims=True) * jnp.array([[0.2], [0.9], [1.1], [3.0]])
        check_grads(jax.jit(lambda x: project_on_ball(x, 1.0)), (x,), 1, ("fwd", "rev"))
        jacobian = jax.jit(jax.jacobian(lambda row: project_on_ball(row, 1.0)))(x[0])
        np.testing.assert_allclose(jacobian, np.eye(5), atol=1e-12)


def test_projection_gradient_at_a_zero_row_is_the_identity() -> None:
    jacobian = jax.jit(jax.jacobian(lambda row: project_on_ball(row, 1.0)))(jnp.zeros(3))
    np.testing.assert_array_equal(jacobian, np.eye(3))


# --- rows of a length -----------------------------------------------------------------------------


@given(
    table=hnp.arrays(np.float32, (7, 5), elements=FLOATS), radius=st.sampled_from([0.3, 1.0, 2.5])
)
def test_rows_of_a_length_match_the_oracle(table: np.ndarray, radius: float) -> None:
    projected = np.asarray(normalize(f32(table), radius))
    np.testing.assert_allclose(projected, oracles.project_on_sphere(table, radius), rtol=1e-5)
    norms = np.linalg.norm(projected.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms[(table != 0).any(axis=1)], radius, rtol=1e-6)


def test_a_length_is_given_along_the_last_axis_and_zero_stays() -> None:
    x = f32(normal(0, 2, 3, 4)).at[0, 1].set(0)
    projected = np.asarray(normalize(x, 2.0))
    np.testing.assert_array_equal(projected.reshape(6, 4), normalize(x.reshape(6, 4), 2.0))
    np.testing.assert_array_equal(projected[0, 1], 0)
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 4, 5))
        check_grads(jax.jit(lambda x: normalize(x, 2.0)), (x,), 1, ("fwd", "rev"))
        assert np.isfinite(jax.jit(jax.jacobian(lambda x: normalize(x, 2.0)))(0 * x)).all()

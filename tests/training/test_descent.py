"""Rows that minimise losses, against minima that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlr_jax.functional import project_on_ball
from hlr_jax.training.descent import minimised


def quadratics(number: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of losses that are round for some rows and long for others, some outside the ball."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(0, np.linspace(0, 3, number)[:, None], (number, dim)))
    return rng.normal(size=(number, dim)), scales


def fitted(centres: np.ndarray, scales: np.ndarray, is_in_ball: bool) -> np.ndarray:
    def losses(rows: jax.Array) -> jax.Array:
        return 1 + jnp.sum(jnp.asarray(scales) * jnp.square(rows - jnp.asarray(centres)), axis=1)

    def project(rows: jax.Array) -> jax.Array:
        return project_on_ball(rows, 1.0) if is_in_ball else rows

    start = jnp.zeros(centres.shape)
    return np.asarray(jax.jit(lambda x: minimised(losses, project, x))(start), np.float64)


@pytest.mark.parametrize("is_in_ball", [False, True])
def test_rows_end_where_losses_are_least(is_in_ball):
    centres, scales = (x.astype(np.float32) for x in quadratics(24, 5))
    rows = fitted(centres, scales, is_in_ball)
    for row, centre, scale in zip(rows, centres, scales, strict=True):
        least = centre.astype(np.float64)
        if is_in_ball and np.linalg.norm(least) > 1:
            # Where the gradient points outwards: scale (centre - x) = multiplier x.
            low, high = 0.0, 1e6
            for _ in range(200):
                middle = (low + high) / 2
                least = scale * centre / (scale + middle)
                low, high = (middle, high) if np.linalg.norm(least) > 1 else (low, middle)
        gained = (scale * (centre**2 - (least - centre) ** 2)).sum()
        lacking = (scale * ((row - centre) ** 2 - (least - centre) ** 2)).sum()
        assert lacking < 1e-3 * (1 + gained)
        assert not is_in_ball or np.linalg.norm(row) < 1 + 1e-6


def test_a_row_does_not_depend_on_others():
    centres, scales = (x.astype(np.float32) for x in quadratics(24, 5))
    together = fitted(centres, scales, True)
    for n in (0, 11, 23):
        pair = slice(n, n + 1)
        np.testing.assert_allclose(fitted(centres[pair], scales[pair], True), together[pair], 1e-3)


def test_no_gradient_and_no_number_leave_a_row_where_it_is():
    def losses(rows: jax.Array) -> jax.Array:
        flat = jnp.zeros(1)
        broken = jnp.where(jnp.sum(jnp.abs(rows[1:2])) > 1e-6, jnp.nan, jnp.sum(rows[1:2]))
        return jnp.concatenate([flat, broken[None]])

    start = jnp.asarray([[0.5, 0.5], [0.0, 0.0]])
    np.testing.assert_allclose(minimised(losses, lambda rows: rows, start), start, atol=1e-5)

"""The positive against all negatives at once, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from hlr_jax.functional import sampled_softmax


def some_distances() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of 6 positives, of 5 negatives each, and which of these count: in the last row none."""
    rng = np.random.default_rng(0)
    counts = rng.random((6, 5)) < 0.7
    counts[0], counts[5] = True, False
    return rng.uniform(0, 4, 6), rng.uniform(0, 4, (6, 5)), counts


def by_loops(
    positive: np.ndarray, negatives: np.ndarray, counts: np.ndarray, temperature: float
) -> list[float]:
    return [
        oracles.sampled_softmax(p, n[c].tolist(), temperature)
        for p, n, c in zip(positive, negatives, counts, strict=True)
    ]


# Exponentials of -4 / 0.01 are no float32; what matters are differences.
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
def test_the_loss_matches_the_oracle(temperature: float) -> None:
    positive, negatives, counts = some_distances()
    hidden = np.where(counts, negatives, np.inf)
    found = sampled_softmax(
        jnp.asarray(positive, jnp.float32), jnp.asarray(hidden, jnp.float32), temperature
    )
    assert found.dtype == jnp.float32
    expected = by_loops(positive, negatives, counts, temperature)
    assert expected[5] == 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 / temperature)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_gradient_matches_differences_of_the_oracle_and_is_finite(temperature: float) -> None:
    positive, negatives, counts = some_distances()
    expected = oracles.numerical_gradient(
        lambda point: sum(by_loops(point["p"], point["n"], counts, temperature)),
        {"p": positive, "n": negatives},
    )

    def total(positive: jax.Array, negatives: jax.Array) -> jax.Array:
        return sampled_softmax(positive, jnp.where(counts, negatives, jnp.inf), temperature).sum()

    with jax.enable_x64(True):
        gradient = jax.grad(total, (0, 1))(jnp.asarray(positive), jnp.asarray(negatives))
    found = [np.asarray(x) for x in gradient]
    for x, y in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)
        assert np.abs(y).max() > 0.1
    assert (found[1][~counts] == 0).all()
    # All together move nothing: only differences of distances count.
    np.testing.assert_allclose(found[0], -found[1].sum(axis=1), rtol=1e-9, atol=1e-12)


def test_far_distances_neither_overflow_nor_vanish() -> None:
    far = jnp.asarray([1e4, 3e4, 1e4 + 1], jnp.float32)
    found = sampled_softmax(far[:1], far[None, 1:], 0.5)
    np.testing.assert_allclose(found, [np.log1p(np.exp(-2))], rtol=1e-5)


def test_what_is_not_a_number_is_not_hidden() -> None:
    negatives = jnp.asarray([[1.0, np.nan], [1.0, np.inf]], jnp.float32)
    found = sampled_softmax(jnp.ones(2), negatives, 0.5)
    assert np.isnan(found).tolist() == [True, False]


def test_negatives_serve_many_positives() -> None:
    _, negatives, counts = some_distances()
    positives = np.random.default_rng(1).uniform(0, 4, (6, 3))
    hidden = jnp.asarray(np.where(counts, negatives, np.inf), jnp.float32)
    found = sampled_softmax(jnp.asarray(positives, jnp.float32), hidden[:, None], 0.5)
    for column in range(3):
        expected = by_loops(positives[:, column], negatives, counts, 0.5)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5, atol=1e-6)


def test_leading_axes_stay() -> None:
    positive, negatives, _ = some_distances()
    rows = jnp.asarray(positive, jnp.float32), jnp.asarray(negatives, jnp.float32)
    flat = sampled_softmax(*rows, 0.5)
    deep = sampled_softmax(rows[0].reshape(2, 3), rows[1].reshape(2, 3, 5), 0.5)
    np.testing.assert_allclose(deep, flat.reshape(2, 3), rtol=1e-6)
    np.testing.assert_allclose(sampled_softmax(rows[0][1], rows[1][1], 0.5), flat[1], rtol=1e-6)

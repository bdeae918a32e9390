"""The geometries, against the oracle's, and what each of them is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import GEOMETRIES, Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.geometry.sphere import Sphere

CASES: list[tuple[Geometry, oracles.Geometry]] = [
    (Ball(), oracles.Ball()),
    (Ball(0.3), oracles.Ball(0.3)),
    (Sphere(), oracles.Sphere()),
    (Sphere(1.7), oracles.Sphere(1.7)),
    (Lorentz(), oracles.Lorentz()),
    (Lorentz(0.4, 2.5), oracles.Lorentz(0.4, 2.5)),
    (Lorentz(5.0, 0.3), oracles.Lorentz(5.0, 0.3)),
]
each_case = pytest.mark.parametrize(("geometry", "oracle"), CASES, ids=lambda x: str(x)[:30])


@jax.jit
def maps(geometry: Geometry, rows: jax.Array) -> tuple[jax.Array, ...]:
    return geometry.embed(rows), geometry.project(rows)


@jax.jit
def distances(geometry: Geometry, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    return geometry.distance(x[:, None], y[None]), geometry.pairwise(x, y)


@jax.jit
def gradients(geometry: Geometry, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, y: geometry.distance(x, y).sum(), (0, 1))(x, y)


def rows_of(seed: int, *shape: int, scale: float = 0.7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape)


@each_case
def test_distances_match_the_oracle(geometry: Geometry, oracle: oracles.Geometry) -> None:
    x, y = rows_of(0, 6, 5), rows_of(1, 4, 5)
    for found in distances(geometry, jnp.float32(x), jnp.float32(y)):
        np.testing.assert_allclose(found, oracles.pairwise(oracle, x, y), rtol=1e-5, atol=1e-6)


@each_case
def test_gradients_match_the_oracle(geometry: Geometry, oracle: oracles.Geometry) -> None:
    x, y = rows_of(0, 6, 5), rows_of(1, 6, 5)
    with jax.enable_x64(True):
        found = [np.asarray(g) for g in gradients(geometry, jnp.asarray(x), jnp.asarray(y))]
    for row in range(6):
        for own, expected in zip(found, oracle.gradient(x[row], y[row]), strict=True):
            np.testing.assert_allclose(own[row], expected, rtol=1e-9, atol=1e-11)


FLOATS = st.floats(-2, 2, width=32, allow_subnormal=False).map(
    lambda x: 0.0 if abs(x) < 1e-6 else x
)


@given(table=hnp.arrays(np.float32, (7, 5), elements=FLOATS))
def test_rows_are_embedded_and_projected_as_by_the_oracle(table: np.ndarray) -> None:
    """Also zero rows. Projected rows are within the radius; a second time nothing moves."""
    for geometry, oracle in CASES:
        embedded, projected = maps(geometry, jnp.asarray(table))
        np.testing.assert_allclose(embedded, oracle.embed(table), rtol=1e-5)
        np.testing.assert_allclose(projected, oracle.project(table), rtol=1e-5)
        points, _ = maps(geometry, projected)
        radius = float(getattr(geometry, "radius", np.inf))
        norms = np.linalg.norm(np.asarray(points, np.float64), axis=1)
        assert (norms <= radius * (1 + 1e-6)).all()
        if isinstance(geometry, Sphere):
            np.testing.assert_allclose(norms[(table != 0).any(axis=1)], radius, rtol=1e-6)
        np.testing.assert_allclose(maps(geometry, embedded)[0], embedded, rtol=1e-6)
        np.testing.assert_allclose(maps(geometry, projected)[1], projected, rtol=1e-6)


def test_the_distance_on_a_sphere_does_not_depend_on_lengths() -> None:
    x, y = rows_of(0, 6, 5), rows_of(1, 4, 5)
    longer = x * np.linspace(0.1, 30, 6)[:, None]
    for found, expected in zip(
        distances(Sphere(1.7), jnp.float32(longer), jnp.float32(3 * y)),
        distances(Sphere(1.7), jnp.float32(x), jnp.float32(y)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    cosines = (x @ y.T) / (np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1))
    expected = 2 * 1.7**2 * (1 - cosines)
    found = distances(Sphere(1.7), jnp.float32(x), jnp.float32(y))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_on_a_sphere_leaves_lengths_alone() -> None:
    """It goes through the norm: nothing pulls along a row, and it falls with the row's length."""
    x, y = rows_of(0, 6, 5), rows_of(1, 6, 5)
    with jax.enable_x64(True):
        short, _ = gradients(Sphere(), jnp.asarray(x), jnp.asarray(y))
        long, _ = gradients(Sphere(), jnp.asarray(4 * x), jnp.asarray(y))
        short, long = np.asarray(short), np.asarray(long)
    np.testing.assert_allclose((short * x).sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(short, 4 * long, rtol=1e-9)
    assert np.abs(short).max() > 0.1


def test_hyperbolic_distance_is_euclidean_where_space_is_flat() -> None:
    """The difference falls as the curvature does."""
    x, y = rows_of(0, 6, 5), rows_of(1, 4, 5)
    flat = oracles.pairwise(oracles.Ball(), x, y)
    with jax.enable_x64(True):
        arguments = jnp.asarray(x), jnp.asarray(y)
        errors = [
            np.abs(np.asarray(distances(Lorentz(c), *arguments)[0]) - flat).max()
            for c in (1.0, 1e-2, 1e-4)
        ]
        gradient = np.asarray(gradients(Lorentz(1e-6), arguments[0][:4], arguments[1])[0])
    assert errors[0] > 0.1
    np.testing.assert_allclose(errors[1] / errors[2], 100, rtol=0.1)
    assert errors[2] < 1e-3
    np.testing.assert_allclose(gradient, 2 * (x[:4] - y), rtol=1e-4, atol=1e-4)


def test_hyperbolic_distance_by_hand() -> None:
    """From the origin it is the arc length `arcsinh(sqrt(c) ||x||) / sqrt(c)`."""
    x = rows_of(0, 5, 4)
    for c in (0.5, 1.0, 3.0):
        found = distances(Lorentz(c), jnp.float32(x), jnp.zeros((1, 4)))[0][:, 0]
        length = np.arcsinh(np.sqrt(c) * np.linalg.norm(x, axis=1)) / np.sqrt(c)
        np.testing.assert_allclose(found, length**2, rtol=1e-5)


def test_hyperbolic_distances_of_close_points_keep_their_digits() -> None:
    """Where arccosh of a number near 1 would have lost them; in double precision as reference."""
    x = rows_of(0, 5, 4)
    for apart in (1e-1, 1e-2, 1e-3):
        y = x + apart * rows_of(1, 5, 4)
        with jax.enable_x64(True):
            exact = Lorentz().distance(jnp.asarray(x), jnp.asarray(y))
            exact = np.asarray(exact)
        found = Lorentz().distance(jnp.float32(x), jnp.float32(y))
        # Rounding of the rows themselves is the most that is lost.
        np.testing.assert_allclose(found, exact, rtol=2e-6 / apart)


@pytest.mark.parametrize("name", GEOMETRIES.names())
def test_gradients_forwards_and_backwards(name: str) -> None:
    geometry = GEOMETRIES.build(name, {})

    @jax.jit
    def everything(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        x, y = geometry.project(x), geometry.project(y)
        return distances(geometry, geometry.embed(x), geometry.embed(y))

    with jax.enable_x64(True):
        lengths = np.array([0.2, 0.9, 1.1, 3.0])[:, None]
        x = rows_of(0, 4, 5)
        x *= lengths / np.linalg.norm(x, axis=1, keepdims=True)
        check_grads(everything, (jnp.asarray(x), jnp.asarray(rows_of(1, 3, 5))), 1, ("fwd", "rev"))


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("ball", {"radius": 0.0}, r"config\.geometry\.radius=0\.0: use a radius above 0"),
        ("sphere", {"radius": -1.0}, r"config\.geometry\.radius=-1\.0: use a radius above 0"),
        ("lorentz", {"radius": 0.0}, r"config\.geometry\.radius=0\.0: use a radius above 0"),
        ("lorentz", {"curvature": 0.0}, r"config\.geometry\.curvature=0\.0: use a curvature above"),
        ("ball", {"curvature": 1.0}, r"config\.geometry\.curvature: geometry 'ball' has no such"),
        ("torus", {}, r"config\.geometry\.name='torus': use one of ball, lorentz, sphere"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float], fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        GEOMETRIES.build(name, options)
    assert "\n" not in str(caught.value)

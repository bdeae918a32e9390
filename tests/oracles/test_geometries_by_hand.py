"""The oracles of geometries against hand-worked cases, and their gradients against differences."""

import math

import numpy as np
import pytest

import oracles

GEOMETRIES = (
    oracles.Ball(),
    oracles.Sphere(),
    oracles.Sphere(1.7),
    oracles.Lorentz(),
    oracles.Lorentz(0.4),
)


def two_points(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(seed).normal(size=(2, 5))
    return x, y


def test_projection_shortens_long_rows_only() -> None:
    rows = [[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]
    expected = [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]
    np.testing.assert_allclose(oracles.project(rows, 1.0), expected)
    for geometry in (oracles.Ball(), oracles.Lorentz()):
        np.testing.assert_allclose(geometry.project(rows), expected)
        np.testing.assert_array_equal(geometry.embed(rows), rows)


def test_rows_of_the_sphere_are_normalised_where_they_are_read() -> None:
    sphere, rows = oracles.Sphere(2.0), [[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]]
    np.testing.assert_allclose(sphere.embed(rows), [[1.2, 1.6], [0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(sphere.project(rows), rows)
    np.testing.assert_allclose(
        oracles.embedded_table(sphere, [[3.0, 4.0, 0.0, 0.5]], 2), [[1.2, 1.6, 0.0, 2.0]]
    )


def test_distances_on_the_sphere_are_those_of_angles() -> None:
    sphere = oracles.Sphere(2.0)
    assert sphere.distance([3.0, 0.0], [0.1, 0.0]) == pytest.approx(0.0)
    assert sphere.distance([3.0, 0.0], [0.0, 0.1]) == pytest.approx(2 * 2.0**2)
    x, y = two_points()
    cosine = x @ y / np.sqrt((x @ x) * (y @ y))
    assert sphere.distance(x, y) == pytest.approx(2 * 2.0**2 * (1 - cosine))


@pytest.mark.parametrize("curvature", [1.0, 0.4])
def test_distances_on_the_hyperboloid_are_lengths_of_geodesics(curvature: float) -> None:
    """At distance `t` from the origin `||x|| = sinh(sqrt(c) t) / sqrt(c)`, in any direction."""
    lorentz, root = oracles.Lorentz(curvature), math.sqrt(curvature)

    def at(t: float) -> list[float]:
        return [math.sinh(root * t) / root * 0.6, math.sinh(root * t) / root * 0.8]

    assert lorentz.inner(at(0.9), at(0.9)) == pytest.approx(-1 / curvature)
    assert lorentz.distance([0.0, 0.0], at(0.9)) == pytest.approx(0.9**2)
    assert lorentz.distance(at(-0.4), at(0.9)) == pytest.approx(1.3**2)
    assert lorentz.distance(at(0.9), at(0.9)) == pytest.approx(0.0, abs=1e-14)


def test_a_hyperboloid_that_is_hardly_curved_is_euclidean() -> None:
    x, y = two_points()
    found = oracles.Lorentz(1e-6).distance(x, y)
    assert found == pytest.approx(oracles.squared_distance(x, y), rel=1e-4)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_distances_are_symmetric_and_zero_to_themselves(geometry: oracles.Geometry) -> None:
    x, y = two_points()
    assert geometry.distance(x, y) == pytest.approx(geometry.distance(y, x))
    assert geometry.distance(x, y) > 0.0
    assert geometry.distance(x, x) == pytest.approx(0.0, abs=1e-14)
    found = oracles.pairwise(geometry, [x, y], [x, y, x + y])
    expected = [[geometry.distance(a, b) for b in (x, y, x + y)] for a in (x, y)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_those_of_differences(geometry: oracles.Geometry) -> None:
    x, y = two_points(1)
    found = oracles.numerical_gradient(
        lambda p: geometry.distance(p["x"], p["y"]), {"x": x, "y": y}
    )
    of_x, of_y = geometry.gradient(x, y)
    np.testing.assert_allclose(of_x, found["x"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(of_y, found["y"], rtol=1e-6, atol=1e-9)
    for of_same in geometry.gradient(x, x):
        np.testing.assert_allclose(of_same, 0.0, atol=1e-12)


def test_the_gradient_on_the_sphere_does_not_change_lengths() -> None:
    x, y = two_points(2)
    of_x, of_y = oracles.Sphere(1.7).gradient(x, y)
    assert of_x @ x == pytest.approx(0.0, abs=1e-12)
    assert of_y @ y == pytest.approx(0.0, abs=1e-12)

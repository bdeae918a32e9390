"""The contract of a geometry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hlr_jax.functional.geometry import Geometry
from hlr_jax.testing.expect import (
    Expect,
    as_arrays,
    check_gradient,
    check_traced,
    instance,
    random_rows,
)

_ROWS, _OTHERS, _DIM = 5, 4, 6


def check_geometry(geometry: Geometry | type[Geometry]) -> None:
    """Raise AssertionError where a geometry breaks its contract.

    - Distances are numbers of single precision, finite, symmetric, 0 between equal points, not
      negative, and batch axes broadcast.
    - `pairwise` gives the same distances, with the same gradients.
    - Gradients are those of finite differences, and finite between equal points and at zero rows.
    - `embed` and `project` change nothing when done twice.
    - `init` gives rows of this shape, others for another key.
    - Where `is_euclidean`, points are the rows and distances squared Euclidean ones.
    - Float options are traced: another value needs no compilation.

    Args:
      geometry: with its options; a class stands for the default ones.
    """
    made: Geometry = instance(geometry)
    expect = Expect(made)
    with expect.traceable():
        _check(expect, made)


def _check(expect: Expect, made: Geometry) -> None:
    def call(geometry: Geometry) -> tuple[Array, Array, Array]:
        x, y = _points(geometry)
        rows = as_arrays(random_rows(4, _ROWS, _DIM, scale=2.0))
        return geometry.distance(x[:4], y), geometry.pairwise(x, y), geometry.project(rows)

    check_traced(expect, made, call)
    _check_maps(expect, made)
    _check_distances(expect, made)
    _check_gradients(expect, made)


def _points(geometry: Geometry) -> tuple[Array, Array]:
    """Points of rows that may be in a table."""
    tables = random_rows(0, _ROWS, _DIM), random_rows(1, _OTHERS, _DIM)
    x, y = (geometry.embed(geometry.project(as_arrays(rows))) for rows in tables)
    return x, y


def _check_maps(expect: Expect, geometry: Geometry) -> None:
    """What becomes of rows: projected, embedded, and new ones."""
    rows = as_arrays(random_rows(2, 3, _ROWS, _DIM, scale=2.0)).at[0, 0].set(0)
    for name, of_rows in (("project", geometry.project), ("embed", geometry.embed)):
        once = of_rows(rows)
        expect.shape(once, rows.shape, name)
        expect.finite(once, f"{name} of rows, of which one is zero")
        expect.close(of_rows(once), once, f"{name} done twice")
        expect.close(of_rows(rows[0, 1]), once[0, 1], f"{name} of a single row")
    keys = jax.random.split(jax.random.key(0))
    first, second = (geometry.init(key, (50, _DIM)) for key in keys)
    expect.shape(first, (50, _DIM), "init")
    expect.finite(first, "init")
    expect.that(bool((first != second).any()), "init gives the same rows for another key")


def _check_distances(expect: Expect, geometry: Geometry) -> None:
    x, y = _points(geometry)
    shifted = x + as_arrays(random_rows(3, _ROWS, _DIM, scale=0.3))
    for rows, what in ((x, "points"), (shifted, "translated points")):
        found, pairwise, one_by_one, turned, to_itself = _distances(geometry, rows, y)
        expect.shape(found, (_ROWS, _OTHERS), "distance of [5, 1, d] and [1, 4, d]")
        expect.finite(found, f"distance between {what}")
        expect.that(float(found.min()) >= -1e-6, f"a distance between {what} is negative")
        expect.close(found, one_by_one, f"distance between {what}, broadcast")
        expect.close(pairwise, found, f"pairwise against distance, between {what}")
        scale = float(found.max())
        expect.that(scale > 0, f"no two {what} are apart")
        if rows is x:
            expect.close(turned, found, "distance the other way round")
            own = float(jnp.abs(to_itself).max())
            expect.that(own <= 1e-6 * scale, f"the distance of a point to itself is {own:.3g}")
        if geometry.is_euclidean:
            apart = np.square(np.asarray(rows)[:, None] - np.asarray(y)).sum(axis=-1)
            expect.close(found, apart, "is_euclidean, but not the squared Euclidean distance")
    if geometry.is_euclidean:
        rows = as_arrays(random_rows(4, _ROWS, _DIM, scale=2.0))
        expect.close(geometry.embed(rows), rows, "is_euclidean, but embed changes rows")


@jax.jit
def _distances(geometry: Geometry, x: Array, y: Array) -> tuple[Array, ...]:
    """Broadcast, pairwise, one by one, the other way round, and to itself."""
    one_by_one = jax.vmap(jax.vmap(geometry.distance, (None, 0)), (0, None))
    return (
        geometry.distance(x[:, None], y[None]),
        geometry.pairwise(x, y),
        one_by_one(x, y),
        geometry.distance(y[None], x[:, None]),
        geometry.distance(x, x),
    )


def _check_gradients(expect: Expect, geometry: Geometry) -> None:
    """Of distances, by rows that are embedded on the way, in double precision."""
    with jax.enable_x64(True):
        weights = random_rows(5, _ROWS, _OTHERS, scale=1.0)

        def by_definition(rows: Any) -> Array:
            x, y = (geometry.embed(x) for x in rows)
            return jnp.sum(geometry.distance(x[:, None], y[None]) * weights)

        def by_pairwise(rows: Any) -> Array:
            return jnp.sum(geometry.pairwise(*map(geometry.embed, rows)) * weights)

        definition, pairwise = (
            jax.jit(jax.value_and_grad(f)) for f in (by_definition, by_pairwise)
        )
        rows = tuple(map(as_arrays, (random_rows(6, _ROWS, _DIM), random_rows(7, _OTHERS, _DIM))))
        gradient = definition(rows)[1]
        expect.close(pairwise(rows)[1], gradient, "the gradient of pairwise", 1e-8)
        check_gradient(expect, lambda x: definition(x)[0], rows, "distance", gradient)
        equal = (rows[0].at[0].set(rows[1][0]), rows[1])
        zero = (rows[0].at[0].set(0), rows[1].at[0].set(0))
        for of_rows, name in ((definition, "distance"), (pairwise, "pairwise")):
            expect.finite(of_rows(equal)[1], f"the gradient of {name} between equal points")
            expect.finite(of_rows(zero)[1], f"the gradient of {name} at zero rows")

"""Small quadratic problems, and paths of plain loops to compare optimizers with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hlr_jax.types import Params

STEPS = 12
SHAPES = {"user": (3, 4), "item": (5, 4), "key": (4, 2)}
RNG = np.random.default_rng(0)
START = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
TARGET = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
CURVATURE = {name: RNG.uniform(0.2, 3, size=shape) for name, shape in SHAPES.items()}

Tables = dict[str, np.ndarray]


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


def quadratic_gradient(tables: Any) -> Any:
    """Of `sum of curvature / 2 (x - target)^2`; the same formula for both precisions."""
    return {
        name: (x - TARGET[name].astype(x.dtype)) * CURVATURE[name].astype(x.dtype)
        for name, x in tables.items()
    }


def as_params(tables: Tables) -> Params:
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()}
    return {"user": arrays["user"], "item": arrays["item"], "relation": {"key": arrays["key"]}}


def as_tables(params: Params) -> dict[str, jax.Array]:
    return {"user": params["user"], "item": params["item"], **params["relation"]}


def by_loops(
    step: Callable[[str, np.ndarray, np.ndarray, int], np.ndarray],
    gradient: Callable[[Tables], Tables] = quadratic_gradient,
) -> list[Tables]:
    """The same with `x <- x - step(name, x, g, t)` in double precision; t counts from 0."""
    tables, visited = START, [START]
    for t in range(STEPS):
        gradients = gradient(tables)
        tables = {name: x - step(name, x, gradients[name], t) for name, x in tables.items()}
        visited.append(tables)
    return visited


def assert_same_path(actual: list[Tables], expected: list[Tables], bound: float = 1e-5) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_close(ours[name], theirs[name], bound)

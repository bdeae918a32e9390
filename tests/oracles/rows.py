"""Vectors in the rows of tables, and the points that they stand for."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, as_array
from oracles.geometries import Geometry


def user_vectors(row: Array, dim: int) -> list[Array]:
    """The vectors that a row of the user table holds: one, or with DPCML several (eq. 1)."""
    return [row[start : start + dim] for start in range(0, len(row), dim)]


def first_vector(row: Array, dim: int) -> Array:
    """The vector of a user that is translated; a user without a row stands at the origin."""
    return user_vectors(row, dim)[0] if len(row) else np.zeros(dim)


def embedded_table(geometry: Geometry, table: ArrayLike, dim: int) -> Array:
    """The points that the rows of a table stand for, vector by vector."""
    rows = [user_vectors(row, dim) for row in as_array(table)]
    none = np.zeros(0)
    points = [[geometry.embed(vector) for vector in vectors] for vectors in rows]
    return np.stack([np.concatenate([none, *vectors]) for vectors in points])


def embedded_tables(geometry: Geometry, params: Any) -> tuple[Array, Array]:
    """The points of the user table and of the item table."""
    dim = as_array(params["item"]).shape[1]
    user, item = (embedded_table(geometry, params[name], dim) for name in ("user", "item"))
    return user, item


def history_vectors(item_table: Array, history: Iterable[int]) -> list[Array]:
    """The item rows of the valid places of a history; ``-1`` is an empty place."""
    return [item_table[n] for n in history if n >= 0]

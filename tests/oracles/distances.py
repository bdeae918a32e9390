"""Squared Euclidean distance, and projections on a ball and a sphere."""

import math

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, as_array


def squared_distance(x: ArrayLike, y: ArrayLike) -> float:
    """``||x - y||^2``, the distance of every paper here (CML)."""
    total = 0.0
    for x_f, y_f in zip(as_array(x), as_array(y), strict=True):
        total += float(x_f - y_f) ** 2
    return total


def project(row_or_table: ArrayLike, radius: float) -> Array:
    """Rows moved into the ball of a radius: ``x <- x * min(1, radius / ||x||)`` (CML).

    A matrix is projected row by row. With the key of shape ``[d, M]`` a row is one feature over
    the slots, as in the published HLR code; with the memory ``[M, d]`` a row is one slot.
    """
    values = as_array(row_or_table)
    if values.ndim == 1:
        norm = math.sqrt(float(values @ values))
        return values * min(1.0, radius / norm) if norm > 0.0 else values.copy()
    projected = np.empty_like(values)
    for n in range(values.shape[0]):
        projected[n] = project(values[n], radius)
    return projected


def project_on_sphere(row_or_table: ArrayLike, radius: float) -> Array:
    """Rows moved onto the sphere of a radius: ``x <- x * radius / ||x||`` (SFCML).

    A zero row stays where it is.
    """
    values = as_array(row_or_table)
    if values.ndim == 1:
        norm = math.sqrt(sum(float(x) ** 2 for x in values))
        return values * (radius / norm) if norm > 0.0 else values.copy()
    return np.stack([project_on_sphere(row, radius) for row in values])

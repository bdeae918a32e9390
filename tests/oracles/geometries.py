"""Where embeddings live, and how far apart two of them are.

A geometry says which point a row of a table stands for (``embed``), the squared distance of two
points (``distance``, whose gradient is ``gradient``), and where a row is moved after an optimizer
step (``project``). A model's distance is that of ``u + r`` and ``i``, where ``u``, ``i`` and
everything that the relation ``r`` reads are points.
"""

import dataclasses
import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, as_array
from oracles.distances import project, project_on_sphere, squared_distance


class Geometry(Protocol):
    """What the oracles of models, losses and rankings ask of a geometry."""

    def embed(self, row_or_table: ArrayLike) -> Array: ...
    def distance(self, x: ArrayLike, y: ArrayLike) -> float: ...
    def gradient(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]: ...
    def project(self, row_or_table: ArrayLike) -> Array: ...


def pairwise(geometry: Geometry, xs: ArrayLike, ys: ArrayLike) -> Array:
    """``D(x, y)`` of every row ``x`` with every row ``y``, ``[rows of xs, rows of ys]``."""
    rows, columns = as_array(xs), as_array(ys)
    found = np.zeros((len(rows), len(columns)))
    for n, x in enumerate(rows):
        for k, y in enumerate(columns):
            found[n, k] = geometry.distance(x, y)
    return found


@dataclasses.dataclass(frozen=True)
class Ball:
    """``D = ||x - y||^2``; rows are kept in a ball of a radius (CML)."""

    radius: float = 1.0

    def embed(self, row_or_table: ArrayLike) -> Array:
        """A row is its point."""
        return as_array(row_or_table).copy()

    def distance(self, x: ArrayLike, y: ArrayLike) -> float:
        """``||x - y||^2``."""
        return squared_distance(x, y)

    def gradient(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """``dD/dx = 2 (x - y) = -dD/dy``."""
        apart = as_array(x) - as_array(y)
        return 2.0 * apart, -2.0 * apart

    def project(self, row_or_table: ArrayLike) -> Array:
        """Long rows are shortened to the radius."""
        return project(row_or_table, self.radius)


BALL = Ball()


@dataclasses.dataclass(frozen=True)
class Sphere:
    """``D = ||R x/||x|| - R y/||y|| ||^2``: of a row only the direction counts."""

    radius: float = 1.0

    def embed(self, row_or_table: ArrayLike) -> Array:
        """The point of the sphere in the direction of a row; a zero row stays zero."""
        return project_on_sphere(row_or_table, self.radius)

    def distance(self, x: ArrayLike, y: ArrayLike) -> float:
        """Both are normalised first: a translated user has left the sphere."""
        return squared_distance(self.embed(x), self.embed(y))

    def gradient(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Through the norms, of vectors that are not zero.

        With ``a = x/||x||`` and ``b = y/||y||``, ``D = 2 R^2 (1 - a . b)``, hence ``dD/dx = -2 R^2
        (b - (a . b) a) / ||x||``.
        """
        a, b = project_on_sphere(x, 1.0), project_on_sphere(y, 1.0)
        cosine = float(a @ b)
        x_norm, y_norm = (math.sqrt(squared_distance(z, 0 * as_array(z))) for z in (x, y))
        scale = -2.0 * self.radius**2
        return scale * (b - cosine * a) / x_norm, scale * (a - cosine * b) / y_norm

    def project(self, row_or_table: ArrayLike) -> Array:
        """Nothing is moved after a step."""
        return as_array(row_or_table).copy()


@dataclasses.dataclass(frozen=True)
class Lorentz:
    """``D = arccosh(-c <x, y>_L)^2 / c``, the squared geodesic distance on a hyperboloid.

    A row is the space coordinates ``x`` of the point whose time coordinate is ``x_0 = sqrt(1/c +
    ||x||^2)``; ``<x, y>_L = x . y - x_0 y_0``, and ``<x, x>_L = -1/c`` (Nickel and Kiela, ICML
    2018). A relation translates the space coordinates.
    """

    curvature: float = 1.0
    radius: float = 1.0

    def embed(self, row_or_table: ArrayLike) -> Array:
        """A row is its point's space coordinates."""
        return as_array(row_or_table).copy()

    def time(self, x: ArrayLike) -> float:
        """``x_0 = sqrt(1/c + ||x||^2)``."""
        return math.sqrt(1.0 / self.curvature + sum(float(x_f) ** 2 for x_f in as_array(x)))

    def inner(self, x: ArrayLike, y: ArrayLike) -> float:
        """``<x, y>_L = x . y - x_0 y_0``."""
        products = zip(as_array(x), as_array(y), strict=True)
        return sum(float(x_f * y_f) for x_f, y_f in products) - self.time(x) * self.time(y)

    def distance(self, x: ArrayLike, y: ArrayLike) -> float:
        """``arccosh(-c <x, y>_L)^2 / c``; rounding may leave the cosh a little below 1."""
        cosh = max(1.0, -self.curvature * self.inner(x, y))
        return math.acosh(cosh) ** 2 / self.curvature

    def gradient(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """By the chain rule, with ``a = -c <x, y>_L``.

        ``dD/da = 2 arccosh(a) / (c sqrt(a^2 - 1))``, which goes to ``2 / c`` as ``a`` goes to 1,
        and ``da/dx = c (y_0 x / x_0 - y)``.
        """
        x, y, c = as_array(x), as_array(y), self.curvature
        a = max(1.0, -c * self.inner(x, y))
        slope = math.acosh(a) / math.sqrt(a * a - 1.0) if a > 1.0 else 1.0
        x_0, y_0 = self.time(x), self.time(y)
        return 2.0 * slope * (y_0 / x_0 * x - y), 2.0 * slope * (x_0 / y_0 * y - x)

    def project(self, row_or_table: ArrayLike) -> Array:
        """Long rows are shortened to the radius."""
        return project(row_or_table, self.radius)

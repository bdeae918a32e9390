"""Hyperbolic space, as the hyperboloid of Lorentz space."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional.distance import (
    pairwise_squared_distances,
    project_on_ball,
    squared_distance,
)
from hlr_jax.functional.geometry.geometry import Geometry
from hlr_jax.registry import register

# Below this, two terms of a series are exact in float32, and its gradient is finite at 0.
_SMALL = 1e-4


@register("lorentz")
class Lorentz(Geometry):
    """`D = arccosh(-c <x, y>)^2 / c`, the squared length of the shortest path.

    A row holds the space coordinates of a point on the hyperboloid `<x, x> = -1/c`; its time
    coordinate is `sqrt(1/c + ||x||^2)`, and `<x, y> = x . y - x_0 y_0` (Nickel and Kiela, ICML
    2018). A relation translates the space coordinates. As `c` goes to 0, `D` becomes the squared
    Euclidean distance. HyperML (Vinh Tran et al., WSDM 2020) measures so in the Poincare ball.

    Attributes:
      curvature: `c`, the space has curvature `-c`.
      radius: rows longer than this are scaled down to it after each step.
    """

    curvature: float = 1.0
    radius: float = 1.0

    def check(self) -> None:
        self.require(self.curvature > 0, "curvature", "use a curvature above 0")
        self.require(self.radius > 0, "radius", "use a radius above 0")

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        return self._along_the_surface(squared_distance(x, y), _square(x), _square(y))

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "k d"]) -> Float[Array, "n k"]:
        return self._along_the_surface(
            pairwise_squared_distances(x, y), _square(x)[:, None], _square(y)[None]
        )

    def project(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return project_on_ball(rows, self.radius)

    def _along_the_surface(
        self,
        apart: Float[Array, "*#b"],
        x_square: Float[Array, "*#b"],
        y_square: Float[Array, "*#b"],
    ) -> Float[Array, "*b"]:
        """Compute `D` from squared distances and squared lengths of space coordinates.

        With `s = ||x - y||^2 - (x_0 - y_0)^2`, `-c <x, y> = 1 + c s / 2`, and `arccosh(1 + 2 z) =
        2 arcsinh(sqrt(z))`: no large terms that cancel.
        """
        c = self.curvature
        times = jnp.sqrt(1 / c + x_square) + jnp.sqrt(1 / c + y_square)
        z = c / 4 * (apart - jnp.square((x_square - y_square) / times))
        far = jnp.where(z > _SMALL, z, 1)
        of_far = jnp.square(jnp.arcsinh(jnp.sqrt(far)))
        return 4 / c * jnp.where(z > _SMALL, of_far, z - jnp.square(z) / 3)


def _square(x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    return jnp.sum(jnp.square(x), axis=-1)

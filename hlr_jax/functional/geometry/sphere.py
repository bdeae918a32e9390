"""The sphere: rows of any length, of which only the direction counts."""

from jaxtyping import Array, Float

from hlr_jax.functional.distance import normalize, pairwise_squared_distances, squared_distance
from hlr_jax.functional.geometry.geometry import Geometry
from hlr_jax.registry import register


@register("sphere")
class Sphere(Geometry):
    """`D = ||x' - y'||^2` with `x' = radius * x / ||x||`, so `D = 2 radius^2 (1 - cos(x, y))`.

    The gradient goes through the norm, and nothing is projected after a step. A translated user is
    normalised again before it is compared. SFCML (Bao et al., TPAMI 2022) projects rows on the
    sphere after each step instead, which is another method. A zero row stays zero.

    Attributes:
      radius: length of every point.
    """

    radius: float = 1.0

    def check(self) -> None:
        self.require(self.radius > 0, "radius", "use a radius above 0")

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        return squared_distance(self.embed(x), self.embed(y))

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "k d"]) -> Float[Array, "n k"]:
        return pairwise_squared_distances(self.embed(x), self.embed(y))

    def embed(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return normalize(rows, self.radius)

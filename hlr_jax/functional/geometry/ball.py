"""The Euclidean ball (CML, Hsieh et al., WWW 2017)."""

from jaxtyping import Array, Float

from hlr_jax.functional.distance import (
    pairwise_squared_distances,
    project_on_ball,
    squared_distance,
)
from hlr_jax.functional.geometry.geometry import Geometry
from hlr_jax.registry import register


@register("ball")
class Ball(Geometry):
    """`D = ||x - y||^2`, rows kept in a ball.

    Attributes:
      radius: rows longer than this are scaled down to it after each step.
    """

    radius: float = 1.0

    def check(self) -> None:
        self.require(self.radius > 0, "radius", "use a radius above 0")

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        return squared_distance(x, y)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "k d"]) -> Float[Array, "n k"]:
        return pairwise_squared_distances(x, y)

    def project(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return project_on_ball(rows, self.radius)

    @property
    def is_euclidean(self) -> bool:
        """True, unless a subclass measures otherwise."""
        own = type(self)
        return own.distance is Ball.distance and own.embed is Geometry.embed

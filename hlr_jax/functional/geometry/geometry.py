"""The contract of a geometry: where embeddings live, and how far apart two of them are."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hlr_jax.registry import Component, Registry


class Geometry(Component):
    """Base of all geometries. Annotated fields are the options that `config.geometry` takes.

    A geometry is one file with a class that defines `distance`, and whatever else differs from
    here. Training, shared negatives and ranking measure by nothing else. Its float options are
    traced: another radius needs no new compilation.
    """

    section: ClassVar[str] = "geometry"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "distance" in vars(cls) and "pairwise" not in vars(cls):
            # A product that another distance multiplies out would rank by that one.
            cls.pairwise = Geometry.pairwise  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        """Measure the squared distance of two points; batch axes broadcast.

        Args:
          x: `[*b, d]`; a user's point, translated by a relation, which may have left the surface
            that `embed` puts rows on.
          y: `[*b, d]`; an item's point.
        """
        raise NotImplementedError

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "k d"]) -> Float[Array, "n k"]:
        """Measure the `distance` of every row of `x` to every row of `y`.

        By definition, which holds `[n, k, d]`. A geometry may override it by something faster that
        gives the same numbers and gradients.
        """
        return self.distance(x[:, None], y[None])

    def embed(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Map rows of a table to the points that they stand for; gradients go through it."""
        return rows

    def project(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Bring rows of a table back to where they may be, after an optimizer step."""
        return rows

    def init(self, key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "n d"]:
        """Draw new rows, from Normal(0, 1/sqrt(d))."""
        return shape[-1] ** -0.5 * jax.random.normal(key, shape, jnp.float32)

    @property
    def is_euclidean(self) -> bool:
        """Tell whether points are rows and `D = ||x - y||^2`, as fast paths assume."""
        return False


GEOMETRIES: Registry[Geometry] = Registry("geometry", "geometry.name")

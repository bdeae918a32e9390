"""Rotate the user, by angles that depend on the item: ours, after RotatE."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History


def rotation_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    key: Float[Array, "d m"],
    angles: Float[Array, "m h"],
) -> Float[Array, "*b d"]:
    """`r = exp(i theta) u - u`, where `theta = (u * item) @ key @ angles`.

    There is an angle for each complex number of `u`: for entries `n` and `n + d / 2` of a row.
    RotatE (Sun et al., ICLR 2019, eqs. 1 and 2) rotates the head of a triplet by angles of its
    relation, which are a table there.
    Rotations keep the length: what is rotated stays in the ball or on the sphere, and on the
    hyperboloid at its distance from the origin.
    """
    theta = (user * item) @ key @ angles
    real, imaginary = jnp.split(user, 2, axis=-1)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    parts = real * cos - imaginary * sin, real * sin + imaginary * cos
    return jnp.concatenate(parts, axis=-1) - user


@register("rotation")
class Rotation(Relation):
    """The user-item pair says how far to rotate the user in each of `d / 2` planes.

    Angles are linear in the pair and have no offset. Rotations that are the same for all pairs,
    which a table of users makes up for, are therefore not among them.

    Attributes:
      rank: `M`, of the linear map from pairs to angles.
    """

    rank: int = 8

    def check(self) -> None:
        self.require(self.dim % 2 == 0, "dim", "use an even number, two for each plane")
        self.require(self.rank >= 1, "rank", "use a rank of 1 or more")

    def setup(self) -> None:
        init = nn.initializers.normal(self.dim**-0.5)
        self.key = self.param("key", init, (self.dim, self.rank), jnp.float32)
        self.angles = self.param("angles", init, (self.rank, self.dim // 2), jnp.float32)

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return rotation_relation(user, item, self.key, self.angles)

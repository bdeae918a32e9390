"""DPCML: several vectors for each user (Bao et al., NeurIPS 2022).

"The Minority Matters: A Diversity-Promoting Collaborative Metric Learning Algorithm". Numbers of
equations are those of the paper.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import squared_distance
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.models.relation import Histories, History, Relation, register


def diversity(vectors: Float[Array, "*b c d"]) -> Float[Array, "*b"]:
    """`sum over ordered pairs of ||u_c - u_c'||^2 / (2 C (C - 1))` (section 2.4).

    Half the mean squared distance between two of a user's C vectors, or what it is computed as:
    `sum ||u_c - mean||^2 / (C - 1)`.
    """
    mean = jnp.mean(vectors, axis=-2, keepdims=True)
    return jnp.sum(squared_distance(vectors, mean), axis=-1) / (vectors.shape[-2] - 1)


@register("dpcml")
class DPCML(Relation):
    """CML from the closest of a user's vectors, whose diversity is kept between two bounds.

    Attributes:
      vectors: `C`, of each user.
      diversity_weight: `eta` in eq. 8; 0 leaves diversity free.
      min_diversity: `delta_1` in eq. 7.
      max_diversity: `delta_2` in eq. 7.
    """

    vectors: int = 4
    diversity_weight: float = 10.0
    min_diversity: float = 0.05
    max_diversity: float = 0.25

    def __post_init__(self) -> None:
        if self.vectors < 2:
            raise InputError(
                f"config.model.vectors={self.vectors}: use 2 or more vectors of a user; with one "
                "it would be config.model.name='cml'"
            )
        for option in ("diversity_weight", "min_diversity"):
            if getattr(self, option) < 0:
                raise InputError(f"config.model.{option}={getattr(self, option)}: use 0 or more")
        if self.max_diversity < self.min_diversity:
            raise InputError(
                f"config.model.max_diversity={self.max_diversity}: use at least "
                f"config.model.min_diversity={self.min_diversity}"
            )
        super().__post_init__()

    @property
    def user_width(self) -> int:
        """`C d`: a user's vectors one after another."""
        return self.vectors * self.dim

    def __call__(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        """`r = u_c - u_1`, where `u_c` is the vector closest to the item.

        So that `||u_1 + r - i||^2` is the smallest over all vectors (eq. 3); of equally close ones
        the first counts.
        """
        vectors = self._vectors(user)
        closest = jnp.argmin(squared_distance(vectors, item[..., None, :]), axis=-1)
        places = closest[..., None, None]
        found = jnp.take_along_axis(
            jnp.broadcast_to(vectors, (*closest.shape, self.vectors, self.dim)), places, axis=-2
        )
        return found[..., 0, :] - user[..., : self.dim]

    def distances_to_all(
        self, users: Float[Array, "u a"], items: Float[Array, "k d"], history: History | None
    ) -> Float[Array, "u k"]:
        """One matrix product, and the smallest over vectors."""
        return -self.scores(users, items, items, None)

    def scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: Histories | None,
    ) -> Float[Array, "u t"]:
        """One matrix product, and the largest over vectors."""
        found = tiles.product_scores(users.reshape(-1, self.dim), tile)
        return jnp.max(found.reshape(len(users), self.vectors, len(tile)), axis=1)

    def penalty(
        self,
        user: Float[Array, "b 1 a"],
        items: Float[Array, "b k_plus_1 d"],
        distances: Float[Array, "b k_plus_1"],
    ) -> Float[Array, "b"] | None:
        """`eta (max(0, delta_1 - diversity) + max(0, diversity - delta_2))` (eqs. 7 and 8).

        Once for each positive, whatever its number of negatives.
        """
        if not self.diversity_weight:
            return None
        found = diversity(self._vectors(user[:, 0]))
        too_small = jax.nn.relu(self.min_diversity - found)
        return self.diversity_weight * (too_small + jax.nn.relu(found - self.max_diversity))

    def _vectors(self, user: Float[Array, "*b a"]) -> Float[Array, "*b c d"]:
        return user.reshape(*user.shape[:-1], self.vectors, self.dim)

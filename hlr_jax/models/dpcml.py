"""DPCML: several vectors for each user (Bao et al., NeurIPS 2022).

"The Minority Matters: A Diversity-Promoting Collaborative Metric Learning Algorithm". Numbers of
equations are those of the paper.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional.geometry import Geometry
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def diversity(geometry: Geometry, vectors: Float[Array, "*b c d"]) -> Float[Array, "*b"]:
    """Compute `sum over ordered pairs of D(u_c, u_c') / (2 C (C - 1))` (section 2.4).

    Half the mean squared distance between two of a user's C vectors.
    """
    count = vectors.shape[-2]
    between = geometry.distance(vectors[..., :, None, :], vectors[..., None, :, :])
    return jnp.sum(between, axis=(-2, -1)) / (2 * count * (count - 1))


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

    def check(self) -> None:
        self.require(
            self.vectors >= 2,
            "vectors",
            "use 2 or more vectors of a user; with one it would be config.model.name='cml'",
        )
        for option in ("diversity_weight", "min_diversity"):
            self.require(getattr(self, option) >= 0, option, "use 0 or more")
        self.require(
            self.max_diversity >= self.min_diversity,
            "max_diversity",
            f"use at least config.model.min_diversity={self.min_diversity}",
        )

    @property
    def user_width(self) -> int:
        """`C d`: a user's vectors one after another."""
        return self.vectors * self.dim

    def __call__(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        """`r = u_c - u_1`, where `u_c` is the vector closest to the item.

        So that `D(u_1 + r, i)` is the smallest over all vectors (eq. 3); of equally close ones
        the first counts.
        """
        vectors = self._vectors(user)
        closest = jnp.argmin(self.geometry.distance(vectors, item[..., None, :]), axis=-1)
        places = closest[..., None, None]
        found = jnp.take_along_axis(
            jnp.broadcast_to(vectors, (*closest.shape, self.vectors, self.dim)), places, axis=-2
        )
        return found[..., 0, :] - user[..., : self.dim]

    def general_pairwise(
        self, users: Float[Array, "u a"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Take the smallest of the pairwise distances of a user's vectors."""
        found = self.geometry.pairwise(users.reshape(-1, self.dim), items)
        return jnp.min(found.reshape(len(users), self.vectors, len(items)), axis=1)

    def general_scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Take minus the smallest of the pairwise distances of a user's vectors."""
        return -self.general_pairwise(users, tile, History.empty(users))

    def penalty(
        self,
        user: Float[Array, "b 1 a"],
        items: Float[Array, "b k_plus_1 d"],
        distances: Float[Array, "b k_plus_1"],
    ) -> Float[Array, "b"]:
        """`eta (max(0, delta_1 - diversity) + max(0, diversity - delta_2))` (eqs. 7 and 8).

        Once for each positive, whatever its number of negatives.
        """
        found = diversity(self.geometry, self._vectors(user[:, 0]))
        too_small = jax.nn.relu(self.min_diversity - found)
        return self.diversity_weight * (too_small + jax.nn.relu(found - self.max_diversity))

    def _vectors(self, user: Float[Array, "*b a"]) -> Float[Array, "*b c d"]:
        return user.reshape(*user.shape[:-1], self.vectors, self.dim)

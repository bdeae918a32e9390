"""TransCF: translate by the neighbourhoods of user and item (Park et al., ICDM 2018)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import pairwise_squared_distances
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def transcf_relation(
    user_neighbours: Float[Array, "*#b d"], item_neighbours: Float[Array, "*#b d"]
) -> Float[Array, "*b d"]:
    """Multiply the neighbourhoods, `r = nbr(u) * nbr(i)`, elementwise (Park et al. 2018).

    Args:
      user_neighbours: mean row of the items that a user has.
      item_neighbours: mean row of the users that an item has.
    """
    return user_neighbours * item_neighbours


@register("transcf")
class TransCF(Relation):
    """The mean of a user's items, times the mean of an item's users.

    As in the HLR authors' version, the means are constants in the gradient. Every step computes
    them again, in a time that grows with the number of interactions.

    Attributes:
      alpha_nbr: weight of the pull of users and items to the means of their neighbours.
      alpha_dist: weight of the distance to the positive.
    """

    alpha_nbr: float = 0.1
    alpha_dist: float = 0.1

    uses_neighbours: ClassVar[bool] = True

    def check(self) -> None:
        for option in ("alpha_nbr", "alpha_dist"):
            self.require(getattr(self, option) >= 0, option, "use a weight, or 0 for none")

    def __call__(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b i"], history: History
    ) -> Float[Array, "*b d"]:
        return transcf_relation(self._parts(user)[1], self._parts(item)[1])

    def euclidean_pairwise(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], history: History
    ) -> Float[Array, "u k"]:
        """Measure by one matrix product."""
        return self._product_distances(users, items)

    def euclidean_scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by one matrix product."""
        return -self._product_distances(users, tile)

    def penalty(
        self,
        user: Float[Array, "b 1 u"],
        items: Float[Array, "b k_plus_1 i"],
        distances: Float[Array, "b k_plus_1"],
    ) -> Float[Array, "b"]:
        """Compute `alpha_nbr (D(u, nbr(u)) + sum D(i, nbr(i))) + alpha_dist D(u + r, positive)`.

        The sum is over the positive and each of its own negatives, so that with one negative
        this is what the HLR authors' code adds to a triplet. Negatives of a pool that a batch
        shares are not pulled.
        """
        pull = self.geometry.distance(*self._parts(user))[:, 0]
        pull = pull + jnp.sum(self.geometry.distance(*self._parts(items)), axis=1)
        return self.alpha_nbr * pull + self.alpha_dist * distances[:, 0]

    def _parts(self, rows: Float[Array, "*b a"]) -> tuple[Array, Array]:
        """Divide rows into own vectors and means of neighbours, which are constants."""
        return rows[..., : self.dim], jax.lax.stop_gradient(rows[..., self.dim :])

    def _product_distances(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"]
    ) -> Float[Array, "u k"]:
        """Compute `||u + n m - i||^2` with `n = nbr(u)`, `m = nbr(i)`.

        That is `||u - i||^2 + (n^2 . m^2 + 2 (u n) . m - 2 n . (m i))`.
        """
        (u, n), (i, m) = self._parts(users), self._parts(items)
        of_users = jnp.concatenate([jnp.square(n), 2 * u * n, -2 * n], axis=1)
        of_items = jnp.concatenate([jnp.square(m), m, m * i], axis=1)
        return pairwise_squared_distances(u, i) + of_users @ of_items.T

"""Mean rows of neighbours, for relations that want them (`Relation.uses_neighbours`)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hlr_jax.kernels import loops
from hlr_jax.kernels.sizes import neighbor_slice
from hlr_jax.models.relation import Relation, embed_tables
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import Params


class NoNeighbours(NamedTuple):
    """For a relation that reads rows alone."""

    def widened(self, model: Relation, params: Params) -> Params:
        """Return the same parameters."""
        return params


class Neighbours(NamedTuple):
    """Who is whose neighbour: a user's neighbours are its items, an item's are its users.

    Attributes:
      users, items: `[slices, n]`; the interactions. Past the end of the tables in what fills the
        last slice up.
      of_users, of_items: `[U]`, `[I]`; how many neighbours each has.
    """

    users: Int[Array, "s n"]
    items: Int[Array, "s n"]
    of_users: Float[Array, "u"]
    of_items: Float[Array, "i"]

    @classmethod
    def of(cls, rows: DeviceInteractions, num_items: int) -> "Neighbours":
        """Find them by these interactions."""
        num_users, number = len(rows.offsets) - 1, len(rows.items)
        entries = jnp.arange(number)
        users = loops.count_up_to(rows.offsets, entries) - 1
        size = neighbor_slice(number)

        def sliced(places: Array, end: int) -> Array:
            return jnp.pad(places, (0, -number % size), constant_values=end).reshape(-1, size)

        return cls(
            sliced(users, num_users),
            sliced(rows.items, num_items),
            jnp.diff(rows.offsets).astype(jnp.float32),
            jnp.zeros(num_items).at[rows.items].add(1.0),
        )

    def widened(self, model: Relation, params: Params) -> Params:
        """Append to each table's rows the mean point of their neighbours.

        After TransCF (Park et al., ICDM 2018). A row without any gets zeros. Time grows with the
        number of interactions.
        """
        points = embed_tables(model, params)
        user, item = points["user"], points["item"]

        def add(sums: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[Array, Array]:
            (to_users, to_items), (users, items) = sums, part
            to_users = to_users.at[users].add(item.at[items].get(mode="clip"), mode="drop")
            to_items = to_items.at[items].add(user.at[users].get(mode="clip"), mode="drop")
            return to_users, to_items

        start = jnp.zeros((len(user), item.shape[1])), jnp.zeros((len(item), user.shape[1]))
        of_users, of_items = loops.add_up(add, start, (self.users, self.items))
        return params | {
            "user": jnp.concatenate([params["user"], _mean(of_users, self.of_users)], axis=1),
            "item": jnp.concatenate([params["item"], _mean(of_items, self.of_items)], axis=1),
        }


def neighbours_for(
    model: Relation, history: DeviceInteractions, num_items: int
) -> Neighbours | NoNeighbours:
    """Find the neighbours that a model reads, if it reads any."""
    return Neighbours.of(history, num_items) if model.uses_neighbours else NoNeighbours()


def _mean(sums: Float[Array, "n d"], counts: Float[Array, "n"]) -> Float[Array, "n d"]:
    return sums / jnp.maximum(counts, 1)[:, None]

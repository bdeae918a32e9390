"""Mean rows of neighbours, for relations that want them (`Relation.uses_neighbours`)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hlr_jax.sampling.sources import Rows
from hlr_jax.training.objective import Params

# Interactions to add up at once on a CPU, so that their rows stay in a core's cache.
SLICE = 256


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
    def of(cls, rows: Rows, num_items: int) -> "Neighbours":
        """By these interactions."""
        num_users, number = len(rows.offsets) - 1, len(rows.items)
        entries = jnp.arange(number)
        users = jnp.searchsorted(rows.offsets, entries, side="right").astype(jnp.int32) - 1
        size = max(1, min(SLICE, number) if jax.default_backend() == "cpu" else number)

        def sliced(places: Array, end: int) -> Array:
            return jnp.pad(places, (0, -number % size), constant_values=end).reshape(-1, size)

        return cls(
            sliced(users, num_users),
            sliced(rows.items, num_items),
            jnp.diff(rows.offsets).astype(jnp.float32),
            jnp.zeros(num_items).at[rows.items].add(1.0),
        )

    def widened(self, params: Params) -> Params:
        """The same parameters, each table's rows followed by the mean row of their neighbours.

        After TransCF (Park et al., ICDM 2018). A row without any gets zeros. Time goes by the
        number of interactions.
        """
        user, item = params["user"], params["item"]

        def add(sums: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[Any, None]:
            (to_users, to_items), (users, items) = sums, part
            to_users = to_users.at[users].add(item.at[items].get(mode="clip"), mode="drop")
            to_items = to_items.at[items].add(user.at[users].get(mode="clip"), mode="drop")
            return (to_users, to_items), None

        start = jnp.zeros((len(user), item.shape[1])), jnp.zeros((len(item), user.shape[1]))
        (of_users, of_items), _ = jax.lax.scan(add, start, (self.users, self.items))
        return params | {
            "user": jnp.concatenate([user, _mean(of_users, self.of_users)], axis=1),
            "item": jnp.concatenate([item, _mean(of_items, self.of_items)], axis=1),
        }


def _mean(sums: Float[Array, "n d"], counts: Float[Array, "n"]) -> Float[Array, "n d"]:
    return sums / jnp.maximum(counts, 1)[:, None]

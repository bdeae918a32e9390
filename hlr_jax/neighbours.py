"""Mean rows of neighbours, for relations that want them (`Relation.uses_neighbours`)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hlr_jax.objective import Params
from hlr_jax.sampling import Rows


def users_of(rows: Rows) -> Int[Array, "n"]:
    """The user of each entry of `rows.items`."""
    entries = jnp.arange(len(rows.items))
    return jnp.searchsorted(rows.offsets, entries, side="right").astype(jnp.int32) - 1


def with_neighbours(params: Params, rows: Rows, users: Int[Array, "n"]) -> Params:
    """The same parameters, with each table's rows followed by the mean row of their neighbours.

    A user's neighbours are its items, an item's are its users (TransCF, Park et al. 2018, eqs. 3
    and 4); a row without any gets zeros. Time goes by the number of interactions.

    Args:
      rows: the interactions that make neighbours.
      users: `users_of(rows)`.
    """
    user, item = params["user"], params["item"]
    of_users = _means(item[rows.items], users, len(user))
    of_items = _means(user[users], rows.items, len(item))
    return params | {
        "user": jnp.concatenate([user, of_users], axis=1),
        "item": jnp.concatenate([item, of_items], axis=1),
    }


def _means(
    rows: Float[Array, "n d"], groups: Int[Array, "n"], num_groups: int
) -> Float[Array, "g d"]:
    sums = jnp.zeros((num_groups, rows.shape[1])).at[groups].add(rows)
    counts = jnp.zeros(num_groups).at[groups].add(1.0)
    return sums / jnp.maximum(counts, 1)[:, None]

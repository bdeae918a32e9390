"""From a batch of triplets to its hinge, and to the gradient of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax import functional
from hlr_jax.config import LossConfig
from hlr_jax.models import base
from hlr_jax.models.base import History, Relation
from hlr_jax.sampling import Batch

# {"user": [U, d], "item": [I, d], "relation": the module's own parameters}
Params = dict[str, Any]

# What a slice of a batch may hold of embedding rows on a CPU: half of a usual core's L2 cache,
# so that all that happens between gathering them and adding up their gradients stays inside it.
CACHE_BYTES = 2**19


class TripletRows(NamedTuple):
    """One value for each place of a batch where a table's row is used.

    Attributes:
      user: `[B, ...]`.
      items: `[B, 1 + K, ...]`.
      history: `[B, P, ...]`, or None.
    """

    user: Array
    items: Array
    history: Array | None


def row_ids(batch: Batch) -> TripletRows:
    """Which rows a batch uses."""
    history = None if batch.history is None else batch.history.items
    return TripletRows(batch.users, batch.items, history)


def gather_rows(params: Params, ids: TripletRows) -> TripletRows:
    """The rows themselves, `[..., d]`."""
    item = params["item"]
    history = None if ids.history is None else item[ids.history]
    return TripletRows(params["user"][ids.user], item[ids.items], history)


def add_rows(tables: Params, places: TripletRows, rows: TripletRows) -> Params:
    """Tables `user` and `item` with these rows added at these places, duplicates summed."""
    item = tables["item"].at[places.items].add(rows.items)
    if rows.history is not None and places.history is not None:
        # Flat, because XLA copies higher-ranked updates of a scatter.
        flat = rows.history.reshape(-1, rows.history.shape[-1])
        item = item.at[places.history.reshape(-1)].add(flat)
    return {"user": tables["user"].at[places.user].add(rows.user), "item": item}


def hinge_of_rows(
    model: Relation,
    config: LossConfig,
    num_items: int,
    relation: Params,
    rows: TripletRows,
    batch: Batch,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the hinge over the batch, and the number of triplets it is a sum of."""
    distances = distances_of_rows(model, config.copy_relation, relation, rows, batch)
    hinge = functional.triplet_hinge(distances[:, 0], distances[:, 1:], config.margin)
    if config.rank_weight:
        # CML: only the closest negative counts, weighted by the positive's estimated rank.
        weight = functional.rank_weight(hinge, num_items)
        hinge = (weight * jnp.max(hinge, axis=1))[:, None]
    return jnp.sum(hinge * batch.weight[:, None]), jnp.sum(batch.weight) * hinge.shape[1]


def distances_of_rows(
    model: Relation, copy_relation: bool, relation: Params, rows: TripletRows, batch: Batch
) -> Float[Array, "b k_plus_1"]:
    """Squared distance of each user, translated, to the positive (first) and the K negatives."""
    user = rows.user[:, None]
    history = None
    if batch.history is not None:
        assert rows.history is not None
        history = History(rows.history[:, None], batch.history.mask[:, None])
    targets = rows.items[:, :1] if copy_relation else rows.items
    found = base.relation(model, relation, user, targets, history)
    return functional.translated_distance(user, found, rows.items)


def triplet_distances(
    model: Relation, copy_relation: bool, params: Params, batch: Batch
) -> Float[Array, "b k_plus_1"]:
    """`distances_of_rows` of the rows that the batch uses."""
    rows = gather_rows(params, row_ids(batch))
    return distances_of_rows(model, copy_relation, params["relation"], rows, batch)


def hinge_of_batch(
    model: Relation, config: LossConfig, num_items: int, params: Params, batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`hinge_of_rows` of the rows that the batch uses."""
    rows = gather_rows(params, row_ids(batch))
    return hinge_of_rows(model, config, num_items, params["relation"], rows, batch)


def hinge_gradient(
    model: Relation,
    config: LossConfig,
    params: Params,
    batch: Batch,
    places: TripletRows,
    zeros: Params,
    num_items: int | None = None,
) -> tuple[Params, tuple[Float[Array, ""], Float[Array, ""]]]:
    """The gradient of `hinge_of_batch`, and its two values.

    By definition `jax.grad` of it, which would build the gradient of all rows of the batch
    at once; this goes through the batch slice by slice and adds each slice's rows up.

    Args:
      places: where in the gradient the rows of each use are summed; `row_ids(batch)` for a
        gradient that is shaped as the tables are.
      zeros: a gradient of nothing, to add to.
      num_items: catalogue size, if the item rows here are not just the catalogue.
    """
    catalogue = num_items or len(params["item"])

    def of_slice(relation: Params, rows: TripletRows, part: Batch) -> tuple[Array, Any]:
        hinge, triplets = hinge_of_rows(model, config, catalogue, relation, rows, part)
        return hinge, (hinge, triplets)

    def add_slice(sums: Any, part: tuple[Batch, TripletRows]) -> tuple[Any, None]:
        (gradient, values), (batch, places) = sums, part
        (relation, rows), more = jax.grad(of_slice, argnums=(0, 1), has_aux=True)(
            params["relation"], gather_rows(params, row_ids(batch)), batch
        )
        relation, values = jax.tree.map(jnp.add, (gradient["relation"], values), (relation, more))
        return ({**add_rows(gradient, places, rows), "relation": relation}, values), None

    size = slice_size(batch, params["user"].shape[-1])
    slices = jax.tree.map(lambda x: _sliced(x, size), (batch, places))
    (gradient, values), _ = jax.lax.scan(add_slice, (zeros, (jnp.zeros(()), jnp.zeros(()))), slices)
    return gradient, values


def covariance_gradient(config: LossConfig, params: Params) -> Params:
    """Gradient of the covariance penalty of all rows, for the tables."""

    def penalty(user: Array, item: Array) -> Array:
        rows = jnp.concatenate([user, item])
        return config.covariance * functional.covariance_penalty(rows)

    user, item = jax.grad(penalty, argnums=(0, 1))(params["user"], params["item"])
    return {"user": user, "item": item}


def slice_size(batch: Batch, dim: int) -> int:
    """Rows of a batch to take at once: all, but on a CPU only what its cache holds."""
    size = len(batch.users)
    if jax.default_backend() != "cpu":
        return size
    places = sum(x[0].size for x in row_ids(batch) if x is not None)
    most = max(1, CACHE_BYTES // (4 * dim * places))
    return -(-size // -(-size // most))  # of equal slices


def _sliced(x: Array, size: int) -> Array:
    """`[B, ...]` as `[slices, size, ...]`, with zeros at the end, which weigh nothing."""
    padding = -len(x) % size
    return jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, size, *x.shape[1:])

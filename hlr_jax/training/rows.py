"""Gather the rows that a batch uses, and add up the gradient of its loss, row by row."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.kernels import loops, sizes
from hlr_jax.kernels.sizes import batch_slice, user_slice
from hlr_jax.training.objective import Objective, losses_of_rows
from hlr_jax.types import Batch, Params, RowIds, UserBatch


def gather_rows(params: Params, ids: RowIds) -> RowIds:
    """Gather the rows of these ids, `[..., d]`."""
    user, item = params["user"], params["item"]
    return RowIds(user[ids.user], item[ids.items], item[ids.history], item[ids.shared])


def add_rows(tables: Params, places: RowIds, rows: RowIds) -> Params:
    """Add rows to tables `user` and `item` at these places, duplicates summed; not shared ones."""
    if not sizes.is_cpu():
        rows = _never_negated(rows, places)
    item = tables["item"].at[places.items].add(rows.items)
    # Flat, because XLA copies higher-ranked updates of a scatter.
    flat = rows.history.reshape(-1, rows.history.shape[-1])
    item = item.at[places.history.reshape(-1)].add(flat)
    return {"user": tables["user"].at[places.user].add(rows.user), "item": item}


def _never_negated(rows: RowIds, places: RowIds) -> RowIds:
    """Return the same rows, times a one that XLA does not know to be one.

    For CUDA XLA adds rows up by atomic additions, four numbers at once. Where the rows end in a
    negation, as gradients of distances do, XLA 0.11 and 0.12 make it a subtraction, for which they
    know no atomic operation: a loop of compare-and-swap is many times slower.
    """
    one = places.user.reshape(-1)[0] >= 0
    return jax.tree.map(lambda x: x * one.astype(x.dtype), rows)


def loss_of_batch(objective: Objective, params: Params, batch: Batch) -> Float[Array, "2"]:
    """Sum the loss over a batch, and count the terms it is a sum of, both weighted."""
    rows = gather_rows(params, batch.row_ids())
    losses = losses_of_rows(objective, params["relation"], rows, batch)
    return jnp.sum(jnp.stack(losses), axis=1)


def batch_gradient(
    objective: Objective, params: Params, batch: Batch, places: RowIds, zeros: Params
) -> tuple[Params, Float[Array, "2"]]:
    """Compute the gradient of `loss_of_batch`, and its two values.

    By definition `jax.grad` of it, which would build the gradient of all rows of the batch
    at once; this goes through the batch slice by slice and adds each slice's rows up.

    Args:
      params: rows may be wider than the tables; what is beyond these is constant.
      places: where in the gradient the rows of each use are summed; `batch.row_ids()` for a
        gradient that is shaped as the tables are.
      zeros: a gradient of zeros, to add to.
    """
    ids = batch.row_ids()
    shared = params["item"][ids.shared]
    widths = [zeros[name].shape[-1] for name in ("user", "item", "item", "item")]

    def of_slice(relation: Params, rows: RowIds, part: Batch) -> tuple[Array, Array]:
        losses = losses_of_rows(objective, relation, rows, part)
        return jnp.sum(losses[0]), jnp.stack(losses)

    def add_slice(sums: Any, slice_: tuple[Batch, RowIds]) -> Any:
        (gradient, of_shared, values), (part, places) = sums, slice_
        rows = gather_rows(params, part.row_ids())._replace(shared=shared)
        (relation, rows), more = jax.grad(of_slice, argnums=(0, 1), has_aux=True)(
            params["relation"], rows, part
        )
        rows = RowIds(*(x[..., :width] for x, width in zip(rows, widths, strict=True)))
        relation, of_shared, values = jax.tree.map(
            jnp.add,
            (gradient["relation"], of_shared, values),
            (relation, rows.shared, jnp.sum(more, axis=1)),
        )
        tables = add_rows(gradient, places, rows)
        return {**tables, "relation": relation}, of_shared, values

    slices = jax.tree.map(
        lambda x: _sliced(x, _slice_size(batch, params)), (_unshared(batch), _unshared_ids(places))
    )
    of_shared = jnp.zeros((len(shared), widths[-1]))
    start = (zeros, of_shared, jnp.zeros(2))
    gradient, of_shared, values = loops.add_up(add_slice, start, slices)
    return gradient | {"item": gradient["item"].at[places.shared].add(of_shared)}, values


def _unshared(batch: Batch) -> Batch:
    """Drop the ids of shared items from a batch, which are no part of a slice; masks stay."""
    return batch.with_items(_unshared_ids(batch.row_ids()))


def _unshared_ids(ids: RowIds) -> RowIds:
    return ids._replace(shared=jnp.zeros((len(ids.user), 0), jnp.int32))


def _slice_size(batch: Batch, params: Params) -> int:
    """Choose how many rows of a batch to take together."""
    if isinstance(batch, UserBatch):
        return user_slice(*batch.history.items.shape)
    ids = batch.row_ids()
    items = ids.items.shape[1] + ids.history.shape[1]
    floats = params["user"].shape[-1] + items * params["item"].shape[-1]
    return batch_slice(len(batch.users), floats, bool(ids.shared.size))


def _sliced(x: Array, size: int) -> Array:
    """Divide `[B, ...]` into `[slices, size, ...]`; zeros at the end weigh nothing."""
    padded = jnp.pad(x, [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(len(padded) // size, size, *x.shape[1:])

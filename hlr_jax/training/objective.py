"""From a batch of positives and negatives to its loss, and to the gradient of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax import functional
from hlr_jax.config import LossConfig
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.models import relation as base
from hlr_jax.models.relation import History, Relation
from hlr_jax.sampling.batches import Batch

# {"user": [U, d], "item": [I, d], "relation": the module's own parameters}
Params = dict[str, Any]

# What a slice of a batch may hold of embedding rows on a CPU: half of a usual core's L2 cache,
# so that all that happens between gathering them and adding up their gradients stays inside it.
CACHE_BYTES = 2**19
# Rows of a slice, at least, where they share their negatives.
POOL_SLICE = 128


class TripletRows(NamedTuple):
    """One value for each place of a batch where a table's row is used.

    Attributes:
      user: `[B, ...]`.
      items: `[B, 1 + K, ...]`.
      history: `[B, P, ...]`, or None.
      pool: `[N, ...]`, or None.
    """

    user: Array
    items: Array
    history: Array | None
    pool: Array | None = None


def row_ids(batch: Batch) -> TripletRows:
    """Which rows a batch uses."""
    history = None if batch.history is None else batch.history.items
    return TripletRows(batch.users, batch.items, history, batch.pool)


def gather_rows(params: Params, ids: TripletRows) -> TripletRows:
    """The rows themselves, `[..., d]`."""
    user, item = params["user"], params["item"]
    history, pool = (None if x is None else item[x] for x in (ids.history, ids.pool))
    return TripletRows(user[ids.user], item[ids.items], history, pool)


def add_rows(tables: Params, places: TripletRows, rows: TripletRows) -> Params:
    """Tables `user` and `item` with these rows added at these places, duplicates summed."""
    item = tables["item"].at[places.items].add(rows.items)
    if rows.history is not None and places.history is not None:
        # Flat, because XLA copies higher-ranked updates of a scatter.
        flat = rows.history.reshape(-1, rows.history.shape[-1])
        item = item.at[places.history.reshape(-1)].add(flat)
    return {"user": tables["user"].at[places.user].add(rows.user), "item": item}


def loss_of_rows(
    model: Relation,
    config: LossConfig,
    num_items: int,
    relation: Params,
    rows: TripletRows,
    batch: Batch,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the loss over the batch, and the number of terms it is a sum of, both weighted."""
    if batch.positives is not None:
        losses, terms = _loss_of_users(model, config, num_items, relation, rows, batch)
        return losses @ batch.weight, terms @ batch.weight
    positive, negatives = distances_of_rows(model, config.copy_relation, relation, rows, batch)
    losses, terms = loss_of_distances(config, positive, negatives, num_items)
    distances = positive[:, None]
    if batch.pool is None:
        distances = jnp.concatenate([distances, negatives], axis=1)
    penalty = base.apply(model, relation, "penalty", rows.user[:, None], rows.items, distances)
    if penalty is not None:
        losses = losses + penalty
    return losses @ batch.weight, terms @ batch.weight


def _loss_of_users(
    model: Relation,
    config: LossConfig,
    num_items: int,
    relation: Params,
    rows: TripletRows,
    batch: Batch,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Of rows that are users: the loss of all positives of each, and their number.

    Each distance is computed once, however many positives a user has.
    """
    assert batch.positives is not None
    assert batch.unseen is not None
    distances = base.apply(model, relation, "distances_to_all", rows.user, rows.pool, None)
    negatives = jnp.where(batch.unseen, distances, jnp.inf)[:, None]
    losses, terms = loss_of_distances(config, distances, negatives, num_items)
    losses, terms = (jnp.where(batch.positives, x, 0) for x in (losses, terms))
    return jnp.sum(losses, axis=1), jnp.sum(terms, axis=1)


def loss_of_distances(
    config: LossConfig,
    positive: Float[Array, "*b"],
    negatives: Float[Array, "*#b k"],
    num_items: int,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """The loss of each positive, and of how many terms it is the sum.

    Args:
      negatives: squared distances; infinite for what does not count.
    """
    once = jnp.ones_like(positive)
    if config.name == "softmax":
        return functional.sampled_softmax(positive, negatives, config.temperature), once
    if config.name == "semi_hard":
        return functional.semi_hard_hinge(positive, negatives, config.margin), once
    if config.name == "contrastive":
        push = config.negative_weight
        return functional.contrastive(positive, negatives, config.margin, push), once
    if config.name == "squared":
        return functional.squared_margin(positive, negatives, config.margin), once
    is_two_sided = config.name == "two_sided"
    of_each = functional.two_sided_hinge if is_two_sided else functional.triplet_hinge
    hinge = of_each(positive, negatives, config.margin)
    if config.rank_weight:
        counted = jnp.sum(jnp.isfinite(negatives), axis=1, dtype=jnp.int32)
        weight = functional.rank_weight(hinge, num_items, counted)
        return weight * functional.closest_hinge(hinge), once
    if config.name == "closest":
        return functional.closest_hinge(hinge), once
    return jnp.sum(hinge, axis=1), jnp.sum(jnp.isfinite(negatives), axis=1, dtype=hinge.dtype)


def distances_of_rows(
    model: Relation, copy_relation: bool, relation: Params, rows: TripletRows, batch: Batch
) -> tuple[Float[Array, "b"], Float[Array, "b k"]]:
    """Squared distance of each user, translated, to the positive and to its negatives."""
    user, history = rows.user[:, None], None
    if batch.history is not None:
        assert rows.history is not None
        history = History(rows.history, batch.history.mask)
    of_rows = None if history is None else History(history.rows[:, None], history.mask[:, None])
    targets = rows.items[:, :1] if copy_relation else rows.items
    found = base.apply(model, relation, "__call__", user, targets, of_rows)
    distances = model.translated(user, found, rows.items)
    positive, negatives = distances[:, 0], distances[:, 1:]
    if rows.pool is not None:
        assert batch.unseen is not None
        if copy_relation:
            translated = functional.translate(rows.user[:, : model.dim], found[:, 0])
            negatives = -tiles.product_scores(translated, rows.pool[:, : model.dim])
        else:
            negatives = base.apply(
                model, relation, "distances_to_all", rows.user, rows.pool, history
            )
        negatives = jnp.where(batch.unseen, negatives, jnp.inf)
    return positive, negatives


def triplet_distances(
    model: Relation, copy_relation: bool, params: Params, batch: Batch
) -> Float[Array, "b k_plus_1"]:
    """`distances_of_rows` of the rows that the batch uses, side by side."""
    rows = gather_rows(params, row_ids(batch))
    found = distances_of_rows(model, copy_relation, params["relation"], rows, batch)
    return jnp.concatenate([found[0][:, None], found[1]], axis=1)


def loss_of_batch(
    model: Relation, config: LossConfig, num_items: int, params: Params, batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`loss_of_rows` of the rows that the batch uses."""
    rows = gather_rows(params, row_ids(batch))
    return loss_of_rows(model, config, num_items, params["relation"], rows, batch)


def loss_gradient(
    model: Relation,
    config: LossConfig,
    params: Params,
    batch: Batch,
    places: TripletRows,
    zeros: Params,
    num_items: int | None = None,
) -> tuple[Params, tuple[Float[Array, ""], Float[Array, ""]]]:
    """The gradient of `loss_of_batch`, and its two values.

    By definition `jax.grad` of it, which would build the gradient of all rows of the batch
    at once; this goes through the batch slice by slice and adds each slice's rows up.

    Args:
      params: rows may be wider than the tables; what is beyond these is constant.
      places: where in the gradient the rows of each use are summed; `row_ids(batch)` for a
        gradient that is shaped as the tables are.
      zeros: a gradient of nothing, to add to.
      num_items: catalogue size, if the item rows here are not just the catalogue.
    """
    catalogue = num_items or len(params["item"])
    # What all slices share is no part of a slice.
    pool = batch.pool
    batch, pool_places = batch._replace(pool=None), places.pool
    places = places._replace(pool=None)
    pool_rows = None if pool is None else params["item"][pool]
    widths = [zeros[name].shape[-1] for name in ("user", "item", "item", "item")]

    def of_slice(relation: Params, rows: TripletRows, part: Batch) -> tuple[Array, Any]:
        whole = part._replace(pool=pool)
        loss, terms = loss_of_rows(model, config, catalogue, relation, rows, whole)
        return loss, (loss, terms)

    def add_slice(sums: Any, part: tuple[Batch, TripletRows]) -> tuple[Any, None]:
        (gradient, of_pool, values), (batch, places) = sums, part
        rows = gather_rows(params, row_ids(batch))._replace(pool=pool_rows)
        (relation, rows), more = jax.grad(of_slice, argnums=(0, 1), has_aux=True)(
            params["relation"], rows, batch
        )
        rows = TripletRows(*map(_cut, rows, widths))
        relation, of_pool, values = jax.tree.map(
            jnp.add,
            (gradient["relation"], of_pool, values),
            (relation, rows.pool, more),
        )
        tables = add_rows(gradient, places, rows)
        return ({**tables, "relation": relation}, of_pool, values), None

    size = slice_size(batch, params["user"].shape[-1], params["item"].shape[-1])
    slices = jax.tree.map(lambda x: _sliced(x, size), (batch, places))
    nothing = jnp.zeros(())
    of_pool = None if pool_rows is None else jnp.zeros((len(pool_rows), widths[-1]))
    start = (zeros, of_pool, (nothing, nothing))
    (gradient, of_pool, values), _ = jax.lax.scan(add_slice, start, slices)
    if of_pool is not None:
        gradient = gradient | {"item": gradient["item"].at[pool_places].add(of_pool)}
    return gradient, values


def _cut(rows: Array | None, width: int) -> Any:
    return None if rows is None else rows[..., :width]


def covariance_gradient(config: LossConfig, params: Params) -> Params:
    """Gradient of the covariance penalty of all rows, for the tables."""
    is_divergence = config.covariance_form == "log_det"
    of_rows = functional.covariance_divergence if is_divergence else functional.covariance_penalty

    def penalty(user: Array, item: Array) -> Array:
        # A user's row may be several vectors.
        rows = jnp.concatenate([user.reshape(-1, item.shape[1]), item])
        return config.covariance * of_rows(rows)

    user, item = jax.grad(penalty, argnums=(0, 1))(params["user"], params["item"])
    return {"user": user, "item": item}


def features_gradient(
    model: Relation,
    params: Params,
    features: Float[Array, "i f"],
    project: Callable[[Array], Array],
) -> Params:
    """Gradient of `Relation.features_penalty`, for the items and the model's own parameters."""

    def penalty(item: Array, relation: Params) -> Array:
        found = base.apply(model, relation, "features_penalty", item, features, project)
        assert isinstance(found, jax.Array)
        return found

    item, relation = jax.grad(penalty, argnums=(0, 1))(params["item"], params["relation"])
    return {"item": item, "relation": relation}


def slice_size(batch: Batch, user_width: int, item_width: int) -> int:
    """Rows of a batch to take at once: all, but on a CPU only what its cache holds."""
    size = len(batch.users)
    if jax.default_backend() != "cpu":
        return size
    ids = row_ids(batch)
    items = sum(x[0].size for x in (ids.items, ids.history) if x is not None)
    most = max(1, CACHE_BYTES // (4 * (user_width + items * item_width)))
    if batch.unseen is not None:
        # Their distances are a matrix product, which wants many rows.
        most = max(most, POOL_SLICE)
    if batch.positives is not None:
        most = POOL_SLICE  # Their embedding rows are the least of it.
    return -(-size // -(-size // most))  # of equal slices


def _sliced(x: Array, size: int) -> Array:
    """`[B, ...]` as `[slices, size, ...]`, with zeros at the end, which weigh nothing."""
    padded = jnp.pad(x, [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(len(padded) // size, size, *x.shape[1:])

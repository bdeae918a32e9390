"""Fit rows of new items against tables that stay as they are.

An item's row is where the loss of all users is smallest, as far as the item has a part in it: for
those who have it as a positive, for all others as one more negative of each of their positives. So
an item that few have ends up as far from most users as items of training that few have. All items
are fitted at once by one compiled program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.kernels import loops
from hlr_jax.kernels.sizes import power_of_two
from hlr_jax.models.relation import apply, embed, embed_tables
from hlr_jax.sampling.histories import HistoryDraw, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.descent import minimised
from hlr_jax.training.fold_in import has_items, means_of
from hlr_jax.training.objective import Objective, penalties
from hlr_jax.types import History, HistoryIds, Params

# Items are fitted in parts of a power of two, at most so many; by so many users at a time.
_MOST_AT_ONCE, _USERS = 64, 256


class MeasuredUsers(NamedTuple):
    """What the loss of items reads of `n` users, or of slices `[s, n]` of them.

    Attributes:
      points: `[n, a]`.
      positions: `[n, d]`; where users are, which is all that counts of them where the relation does
        not depend on the item.
      histories: `[n, P]`.
      weights: `[n]`; of each positive of a user, 0 for a user that was not trained on.
      counts: `[n]`; positives of a user.
      unseen: `[n]`; `log sum exp(-D / temperature)` over the items a user has not seen.
      shared: `[n]`; the same with one of its positives, of which this is the harmonic mean.
    """

    points: Float[Array, "*s n a"]
    positions: Float[Array, "*s n d"]
    histories: HistoryIds
    weights: Float[Array, "*s n"]
    counts: Float[Array, "*s n"]
    unseen: Float[Array, "*s n"]
    shared: Float[Array, "*s n"]


class ItemFitting(struct.PyTreeNode):
    """What rows of items are fitted by.

    Attributes:
      objective: its model, and a softmax over the catalogue.
      params: points of items, and the relation.
      users: in slices.
    """

    objective: Objective
    params: Params
    users: MeasuredUsers

    @property
    def temperature(self) -> Any:
        loss = self.objective.loss
        assert isinstance(loss, Softmax)
        return loss.temperature


def prepare(
    objective: Objective,
    params: Params,
    draw: HistoryDraw,
    train: Interactions,
    exponent: float,
) -> ItemFitting:
    """Measure the users of training against the catalogue, once for all items that are fitted.

    Args:
      objective: the model, and a softmax over the catalogue.
      params: as they were trained; rows followed by means of neighbours, for a model that reads
        these.
      train: what users were trained on, which is their history too.
      exponent: a positive counts `(training interactions of its user)^-exponent`.
    """
    size = min(_USERS, power_of_two(train.num_users))
    users = np.arange(-(-train.num_users // size) * size, dtype=np.int32).reshape(-1, size)
    args = objective, params, draw, DeviceInteractions.rounded(train)
    return _prepared(*args, jnp.asarray(users), jnp.float32(exponent))


@jax.jit
def _prepared(
    objective: Objective,
    params: Params,
    draw: HistoryDraw,
    train: DeviceInteractions,
    users: Int[Array, "s n"],
    exponent: Float[Array, ""],
) -> ItemFitting:
    model, relation, loss = objective.model, params["relation"], objective.loss
    assert isinstance(loss, Softmax)
    points = embed_tables(model, params)
    catalogue = points["item"]

    def of_slice(rows: Int[Array, "n"]) -> MeasuredUsers:
        # Rows that fill the last slice up have nothing, and count nothing.
        own = points["user"].at[rows].get(mode="clip")
        history = user_histories(draw, train, rows)
        count = train.counts(rows).astype(jnp.float32)
        distances = apply(
            model, relation, "target_distances", own, catalogue, history, len(catalogue)
        )
        logits = -distances / loss.temperature
        has = has_items(train, rows, len(catalogue))
        unseen = logsumexp(jnp.where(has, -jnp.inf, logits), axis=1)
        with_own = jnp.logaddexp(unseen[:, None], logits)
        shared = jnp.log(count) - logsumexp(jnp.where(has, -with_own, -jnp.inf), axis=1)
        weight = jnp.where(count > 0, jnp.maximum(count, 1) ** -exponent, 0)
        position = model.first(own)
        if not model.reads_item:
            read = History(catalogue[history.items], history.mask)
            position = apply(model, relation, "translated_once", own, catalogue[:1], read)
        finite = (jnp.where(count > 0, x, 0) for x in (unseen, shared))
        return MeasuredUsers(own, position, history, weight, count, *finite)

    kept = {name: points[name] for name in ("item", "relation")}
    return ItemFitting(objective, kept, jax.lax.map(of_slice, users))


def fit_items(fitting: ItemFitting, users: Interactions) -> Float[Array, "k d"]:
    """Fit the rows of items, given all users of training who have them, on the device.

    Args:
      users: of each new item, one at least.

    Returns:
      As many as a power of two, the items first, as a table of items has them.
    """
    count = users.num_users
    size = min(max(power_of_two(count), 2), _MOST_AT_ONCE)
    parts = power_of_two(-(-count // size))
    items = np.minimum(np.arange(parts * size, dtype=np.int32), count - 1).reshape(parts, size)
    return _fit(fitting, DeviceInteractions.rounded(users), jnp.asarray(items))


@jax.jit
def _fit(
    fitting: ItemFitting, users: DeviceInteractions, items: Int[Array, "p k"]
) -> Float[Array, "pk d"]:
    rows = jax.lax.map(functools.partial(_fit_part, fitting, users), items)
    return rows.reshape(items.size, rows.shape[-1])


def _fit_part(
    fitting: ItemFitting, users: DeviceInteractions, items: Int[Array, "k"]
) -> Float[Array, "k d"]:
    model, measured = fitting.objective.model, fitting.users
    slices, size = measured.weights.shape
    has = has_items(users, items, slices * size)
    # For a model that reads neighbours, the mean of an item's users is a constant behind its row.
    constant = means_of(has, measured.points.reshape(slices * size, -1)[:, : model.dim])
    constant = constant if model.uses_neighbours else constant[:, :0]
    parts = measured, jnp.moveaxis(has.reshape(len(items), slices, size), 0, 2)

    def losses(rows: Array) -> Array:
        points = jnp.concatenate([embed(model, rows, model.dim), constant], axis=1)
        of_slice = jax.checkpoint(functools.partial(_losses_of_slice, fitting))
        start = jnp.zeros(len(items))
        return loops.add_up(lambda total, part: total + of_slice(points, *part), start, parts)

    start = means_of(has, measured.positions.reshape(slices * size, -1))
    return minimised(losses, model.geometry.project, start)


def _losses_of_slice(
    fitting: ItemFitting, items: Float[Array, "k c"], users: MeasuredUsers, has: Bool[Array, "n k"]
) -> Float[Array, "k"]:
    """Add up what items have to do with the loss of some users, of whom some have them."""
    model, params = fitting.objective.model, fitting.params
    if model.reads_item:
        history = History(params["item"][users.histories.items], users.histories.mask)
        args = users.points, items, history
        distances = apply(model, params["relation"], "pairwise_distances", *args)
    else:
        distances = model.geometry.pairwise(users.positions, model.first(items))
    logits = -distances / fitting.temperature
    as_positive = jax.nn.softplus(users.unseen[:, None] - logits)
    as_positive += penalties(model, params["relation"], users.points, items, distances)
    as_negative = users.counts[:, None] * jax.nn.softplus(logits - users.shared[:, None])
    return users.weights @ jnp.where(has, as_positive, as_negative)

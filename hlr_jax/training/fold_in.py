"""Fit rows of new users against tables that stay as they are.

A user's row is where its loss over the whole catalogue is smallest, every other row being known.
All users are fitted at once by one compiled program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.kernels.sizes import power_of_two
from hlr_jax.models.relation import apply, embed
from hlr_jax.sampling.histories import (
    HistoryDraw,
    RecentChoice,
    sample_history,
    user_histories,
)
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.descent import minimised
from hlr_jax.training.objective import Objective, losses_of_distances
from hlr_jax.types import HistoryIds, Params, UserBatch

# Users are fitted in parts of a power of two, who hold about so many numbers together.
_MOST_AT_ONCE, _FLOATS = 256, 2**23
# Where each item is seen by what came before it, so many of a user's last items count.
_LAST = 16
# XLA makes much slower code of products with a single row.
_FEWEST_AT_ONCE = 2


class Fitting(struct.PyTreeNode):
    """What rows of users are fitted by.

    Attributes:
      objective: its model and loss; all unseen items are negatives.
      params: as they were trained; rows followed by means of neighbours, for a model that reads
        these.
      draw: how histories are drawn.
      most: users that are fitted together, a power of two.
    """

    objective: Objective
    params: Params
    draw: HistoryDraw
    most: int = struct.field(pytree_node=False, default=_FEWEST_AT_ONCE)

    @classmethod
    def of(cls, objective: Objective, params: Params, draw: HistoryDraw) -> "Fitting":
        """Choose how many users to fit together, by what they hold then."""
        fitting, places = cls(objective, params, draw), draw.length
        one = HistoryIds(jnp.zeros((1, places), jnp.int32), jnp.ones((1, places), bool))
        known = jax.eval_shape(_known, fitting, params["item"], one)
        floats = len(params["item"]) * max(places, 1)
        floats += sum(x.size for x in jax.tree.leaves(known))
        floats *= fitting.examples
        fit = 1 << max(1, _FLOATS // floats).bit_length() - 1
        return fitting.replace(most=max(_FEWEST_AT_ONCE, min(fit, _MOST_AT_ONCE)))

    @property
    def examples(self) -> int:
        """How many histories of a user its row is fitted by."""
        return _LAST if isinstance(self.draw.choice, RecentChoice) else 1


class Fitted(NamedTuple):
    """Users whose rows have been fitted; some at the end may fill up.

    Attributes:
      rows: `[n, a]`, as a table of users has them.
      points: `[n, c]`, as ranking reads them: what rows stand for, followed by means of neighbours
        for a model that reads these.
    """

    rows: Float[Array, "n a"]
    points: Float[Array, "n c"]


def fit_users(fitting: Fitting, interactions: Interactions) -> Fitted:
    """Fit the rows of users, given all that they have, on the device.

    Args:
      interactions: of the new users, each of whom has an item.

    Returns:
      As many as a power of two, the users first; `[n, 0]` for a model without rows of users.
    """
    count, most = interactions.num_users, fitting.most
    size = min(max(power_of_two(count), _FEWEST_AT_ONCE), most)
    parts = power_of_two(-(-count // size)) if count <= 8 * size else -(-count // size)
    users = np.minimum(np.arange(parts * size, dtype=np.int32), count - 1).reshape(parts, size)
    return _fit(fitting, DeviceInteractions.rounded(interactions), users)


@jax.jit
def _fit(fitting: Fitting, interactions: DeviceInteractions, users: Int[Array, "p n"]) -> Fitted:
    fitted = jax.lax.map(functools.partial(_fit_part, fitting, interactions), users)
    return jax.tree.map(lambda x: x.reshape(users.size, x.shape[-1]), fitted)


def _fit_part(fitting: Fitting, interactions: DeviceInteractions, users: Int[Array, "n"]) -> Fitted:
    objective, params = fitting.objective, fitting.params
    model, relation = objective.model, params["relation"]
    catalogue = embed(model, params["item"], model.dim)
    has = has_items(interactions, users, len(catalogue))
    mean = means_of(has, model.first(catalogue))
    # For a model that reads neighbours, the mean of a user's items is a constant behind its row.
    constant = mean if model.uses_neighbours else mean[:, :0]
    times = fitting.examples
    history, positive = _examples(fitting, interactions, users, has)
    known = _known(fitting, catalogue, history)
    # Distances are given, so that numbers of rows do not matter.
    everything = jnp.arange(len(catalogue), dtype=jnp.int32)
    unseen = ~jnp.repeat(has, times, axis=0)
    weight = 1 / jnp.maximum(_sums(jnp.sum(positive.astype(jnp.float32), axis=1), times), 1)
    one = jnp.ones(len(positive), jnp.float32)
    batch = UserBatch(jnp.repeat(users, times), everything, positive, unseen, history, one)

    def points(rows: Array) -> Array:
        return jnp.concatenate([embed(model, rows, model.user_width), constant], axis=1)

    def losses(rows: Array) -> Array:
        own = jnp.repeat(points(rows), times, axis=0)
        found = apply(model, relation, "known_distances", own, catalogue, known)
        losses, _ = losses_of_distances(objective, relation, own, catalogue, found, batch)
        return _sums(losses, times) * weight

    def project(rows: Array) -> Array:
        return model.geometry.project(rows.reshape(-1, model.dim)).reshape(rows.shape)

    # Every vector of a user starts at the mean of its items.
    start = jnp.tile(mean, (1, model.user_width // model.dim))
    rows = minimised(losses, project, start) if model.user_width else start
    return Fitted(rows, points(rows))


def _sums(values: Float[Array, "nt"], times: int) -> Float[Array, "n"]:
    """Add up so many values for each user."""
    return jnp.sum(values.reshape(-1, times), axis=1)


def _examples(
    fitting: Fitting,
    interactions: DeviceInteractions,
    users: Int[Array, "n"],
    has: Bool[Array, "n i"],
) -> tuple[HistoryIds, Bool[Array, "nt i"]]:
    """Choose the histories of users, and which items are to be near to them then.

    That is everything that they have, at once; or, where a history is what came before, each of
    their last items after that.
    """
    draw, times, number = fitting.draw, fitting.examples, has.shape[1]
    if times == 1:
        return user_histories(draw, interactions, users), has
    no_target = jnp.full((), -1, jnp.int32)
    last, is_one = jax.vmap(
        lambda user: draw.choice.subset(draw.key, interactions, user, no_target, times)
    )(users)
    each, places = jnp.repeat(users, times), last.reshape(-1)
    histories = jax.vmap(
        lambda user, place: sample_history(
            draw.key, interactions, draw.choice, user, place, draw.length
        )
    )(each, places)
    items = interactions.items[interactions.offsets[each] + places]
    nearby = jnp.where(is_one.reshape(-1), items, number)
    return histories, nearby[:, None] == jnp.arange(number)[None]


def _known(fitting: Fitting, catalogue: Float[Array, "i c"], history: HistoryIds) -> Any:
    """Compute what rows of users do not change."""
    model, relation = fitting.objective.model, fitting.params["relation"]
    return apply(model, relation, "known_of_items", catalogue, history)


def has_items(
    interactions: DeviceInteractions, users: Int[Array, "n"], number: int
) -> Bool[Array, "n i"]:
    """Mark the items that users have."""
    starts, counts = interactions.offsets[users][:, None], interactions.counts(users)[:, None]
    places = jnp.arange(interactions.longest, dtype=jnp.int32)[None]
    items = interactions.items.at[starts + places].get(mode="clip")
    items = jnp.where(places < counts, items, number)
    of_row = jnp.arange(len(users), dtype=jnp.int32)[:, None]
    return jnp.zeros((len(users), number), bool).at[of_row, items].set(True, mode="drop")


def means_of(has: Bool[Array, "n i"], points: Float[Array, "i d"]) -> Float[Array, "n d"]:
    """Average the points of what each has; zeros of nothing."""
    shares = has.astype(jnp.float32)
    return shares / jnp.maximum(jnp.sum(shares, axis=1, keepdims=True), 1) @ points

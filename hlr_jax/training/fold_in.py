"""Fit rows of new users against tables that stay as they are.

A user's row is where its loss over the whole catalogue is smallest, every other row being known.
All users are fitted at once by one compiled program of a fixed number of steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.kernels.sizes import power_of_two
from hlr_jax.models.relation import embed
from hlr_jax.sampling.histories import HistoryDraw, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.objective import Objective, losses_of_rows
from hlr_jax.types import HistoryIds, Params, RowIds, UserBatch

# Chosen on held-out users of MovieLens 1M (benchmarks/foldin): more steps change nothing there.
STEPS = 30
_RATE = 0.1
# Entries of users times items that are held at once.
_ENTRIES = 2**21
# Users are fitted in parts of a power of two, at most so many.
_MOST_AT_ONCE = 256


class Fitting(struct.PyTreeNode):
    """What rows of users are fitted by.

    Attributes:
      objective: its model and loss; all unseen items are negatives.
      params: as they were trained; rows followed by means of neighbours, for a model that reads
        these.
      draw: how histories are drawn.
    """

    objective: Objective
    params: Params
    draw: HistoryDraw


class _Part(NamedTuple):
    """Some of the users.

    Attributes:
      items: `[n, L]` int32; what they have, filled up by `I`.
      history: `[n, P]`; places among all items.
    """

    items: Int[Array, "n l"]
    history: HistoryIds


def fit_users(fitting: Fitting, interactions: Interactions) -> Float[np.ndarray, "u a"]:
    """Fit the rows of users, given all that they have.

    Args:
      interactions: of the new users, each of whom has an item.

    Returns:
      Rows as a table of users has them; `[u, 0]` for a model without rows of users.
    """
    model, count = fitting.objective.model, interactions.num_users
    width = model.user_width
    if not width:
        return np.zeros((count, 0), np.float32)
    longest = power_of_two(int(interactions.counts.max(initial=1)))
    size = min(power_of_two(count), _MOST_AT_ONCE, max(1, _ENTRIES // interactions.num_items))
    parts = power_of_two(-(-count // size)) if count <= 8 * size else -(-count // size)
    users = np.minimum(np.arange(parts * size), count - 1).astype(np.int32)
    items = np.full((count, longest), interactions.num_items, np.int32)
    places = np.arange(len(interactions)) - np.repeat(
        interactions.offsets[:-1], interactions.counts
    )
    items[interactions.users, places] = interactions.items
    numbers = jnp.asarray(users)
    drawn = user_histories(fitting.draw, DeviceInteractions.rounded(interactions), numbers, numbers)
    shape = (parts, size)
    rows = _fit(
        fitting,
        jnp.asarray(items[users].reshape(*shape, longest)),
        jax.tree.map(lambda x: x.reshape(*shape, -1), drawn),
    )
    return np.asarray(rows).reshape(-1, width)[:count]


@jax.jit
def _fit(
    fitting: Fitting, items: Int[Array, "p n l"], history: HistoryIds
) -> Float[Array, "p n a"]:
    return jax.lax.map(lambda part: _fit_part(fitting, _Part(*part)), (items, history))


def _fit_part(fitting: Fitting, part: _Part) -> Float[Array, "n a"]:
    objective, params = fitting.objective, fitting.params
    model, catalogue = objective.model, params["item"]
    count, number = len(part.items), len(catalogue)
    has = jnp.zeros((count, number), bool)
    of_row = jnp.arange(count, dtype=jnp.int32)[:, None]
    has = has.at[of_row, part.items].set(True, mode="drop")
    weight = 1 / jnp.maximum(jnp.sum(has.astype(jnp.float32), axis=1), 1)
    # Rows are given, so that their numbers do not matter.
    everything = jnp.arange(number, dtype=jnp.int32)
    batch = UserBatch(part.items[:, 0], everything, has, ~has, part.history, weight)
    start, constant = _start(fitting, has)

    def loss(rows: Array) -> Array:
        own = jnp.concatenate([rows, constant], axis=1)
        empty = jnp.zeros((count, 0, catalogue.shape[1]))
        ids = RowIds(own, empty, empty, catalogue)
        return jnp.sum(losses_of_rows(objective, params["relation"], ids, batch)[0])

    def step(number: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, mean, square = state
        gradient = jax.grad(loss)(rows)
        mean = 0.8 * mean + 0.2 * gradient
        # One scale for all numbers of a row, so that its direction is that of the gradient.
        square = 0.9 * square + 0.1 * jnp.mean(gradient**2, axis=1, keepdims=True)
        done = (number + 1).astype(jnp.float32)
        ahead = mean / (1 - 0.8**done)
        scale = jnp.sqrt(square / (1 - 0.9**done)) + 1e-12
        rate = _RATE * 0.5 * (1 + jnp.cos(jnp.pi * number.astype(jnp.float32) / STEPS))
        rows = rows - rate * ahead / scale / rows.shape[1] ** 0.5
        vectors = rows.reshape(-1, model.dim)
        return model.geometry.project(vectors).reshape(rows.shape), mean, square

    state = (start, jnp.zeros_like(start), jnp.zeros((count, 1)))
    return jax.lax.fori_loop(0, STEPS, step, state)[0]


def _start(
    fitting: Fitting, has: Bool[Array, "n i"]
) -> tuple[Float[Array, "n a"], Float[Array, "n c"]]:
    """Start every vector of a user at the mean of its items; and give what is constant of a row.

    That is, for a model that reads neighbours, the mean point of the items.
    """
    model, catalogue = fitting.objective.model, fitting.params["item"]
    shares = has.astype(jnp.float32)
    shares = shares / jnp.maximum(jnp.sum(shares, axis=1, keepdims=True), 1)
    points = embed(model, catalogue, model.dim)[:, : model.dim]
    mean = shares @ points
    start = jnp.tile(mean, (1, model.user_width // model.dim))
    constant = mean if model.uses_neighbours else mean[:, :0]
    return start, constant

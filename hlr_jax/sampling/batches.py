"""Complete the rows of a step to a batch: negatives and histories, drawn on the device.

All draws are functions of a key, and the keys of (seed, epoch, interaction), so a run that resumes,
or spreads a batch over devices, draws what it would have drawn anyway. Samplers of histories and
negatives handle one row; they are mapped over a batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from hlr_jax.sampling.histories import sample_history
from hlr_jax.sampling.negatives import first_places, has_of_shared, is_first
from hlr_jax.sampling.samplers import (
    HISTORIES,
    SHARED,
    Examples,
    Sampler,
    key_of_step,
    keys_of_rows,
)
from hlr_jax.sampling.sources import SamplingSource, Source, UserSource
from hlr_jax.types import Batch, HistoryIds, TripletBatch, UserBatch


class Drawing(struct.PyTreeNode):
    """How batches are drawn.

    Attributes:
      sampler: of negatives.
      user_weight_exponent: a positive counts `(training interactions of its user)^-exponent`.
      history_length: `P`; 0 for a model that reads no history.
    """

    sampler: Sampler
    user_weight_exponent: Any = 0.0
    history_length: int = struct.field(pytree_node=False, default=0)


def draw_batch(
    drawing: Drawing,
    source: Source,
    rows: Int[Array, "b"],
    key: Key[Array, ""],
    step: Int[Array, ""] | int = 0,
    axes: tuple[str, ...] = (),
) -> Batch:
    """Draw the batch of these rows of a source: positives, or users with all of theirs.

    Args:
      rows: `[B]`; -1 is padding.
      key: of the epoch.
      step: of the epoch.
      axes: names of the axes of devices that the step's rows are spread over.
    """
    valid, rows = rows >= 0, jnp.maximum(rows, 0)
    numbers = source.first + rows.astype(jnp.uint32)
    if isinstance(source, UserSource):
        keys = keys_of_rows(key, HISTORIES, numbers)
        step_key = key_of_step(key, SHARED, step)
        return _batch_of_users(drawing, source, _Users(source.users[rows], valid, keys, step_key))
    users, positives = source.users[rows], source.items[rows]
    examples = Examples(key, step, users, positives, valid, numbers, axes)
    position = source.position[rows]
    history = _histories(drawing, source, examples.keys(HISTORIES), users, position)
    weight = _weight(drawing, source, users, valid)
    return TripletBatch(users, positives, drawing.sampler.draw(examples, source), history, weight)


def _histories(
    drawing: Drawing,
    source: SamplingSource,
    keys: Key[Array, "b"],
    users: Int[Array, "b"],
    position: Int[Array, "b"],
) -> HistoryIds:
    """Draw histories of users without the targets at these positions; -1 leaves out none."""
    length = drawing.history_length
    if not length:
        return HistoryIds.empty(len(users))
    return jax.vmap(
        lambda k, u, p: sample_history(k, source.history, source.history_choice, u, p, length)
    )(keys, users, position)


class _Users(NamedTuple):
    """The users of a step.

    Attributes:
      rows, valid: `[B]`; their rows, and False for padding.
      keys: `[B]`; of their histories.
      step_key: of the step.
    """

    rows: Int[Array, "b"]
    valid: Bool[Array, "b"]
    keys: Key[Array, "b"]
    step_key: Key[Array, ""]


def _batch_of_users(drawing: Drawing, source: UserSource, users: _Users) -> UserBatch:
    """Take the positives of some users among the targets of a step."""
    rows = users.rows
    items = drawing.sampler.targets(users.step_key, source)
    number, places = len(items), first_places(items, source.num_items)
    positive = seen = has_of_shared(places, number, source.positives, rows)
    if not source.are_all_seen:
        seen = has_of_shared(places, number, source.seen, rows)
    none_left_out = jnp.full(len(rows), -1, jnp.int32)
    history = _histories(drawing, source, users.keys, rows, none_left_out)
    found = places[history.items]
    if not drawing.sampler.is_full_catalog:
        # What is in a history stands behind the targets, if it is none of them.
        behind = number + jnp.arange(history.items.size, dtype=jnp.int32)
        found = jnp.where(found < number, found, behind.reshape(found.shape))
        is_used = history.mask & users.valid[:, None] & (found >= number)
        others = jnp.where(is_used, history.items, source.num_items)
        items = jnp.concatenate([items, others.reshape(-1)])
    history = history._replace(items=found)
    weight = _weight(drawing, source, rows, users.valid)
    unseen = is_first(items[:number], places)[None] & ~seen
    return UserBatch(rows, items, positive, unseen, history, weight)


def _weight(
    drawing: Drawing, source: SamplingSource, users: Int[Array, "b"], valid: Bool[Array, "b"]
) -> Float[Array, "b"]:
    """Weigh rows by `(training interactions of the user)^-exponent`; padding by 0."""
    counts = jnp.maximum(source.history.counts(users), 1).astype(jnp.float32)
    return jnp.where(valid, counts**-drawing.user_weight_exponent, 0)

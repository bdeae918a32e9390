"""Complete the rows of a step to a batch: negatives and histories, drawn on the device.

All draws are functions of a key, and the keys of (seed, epoch, interaction), so a run that resumes,
or spreads a batch over devices, draws what it would have drawn anyway. Samplers of histories and
negatives handle one row; they are mapped over a batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from hlr_jax.sampling.histories import sample_history
from hlr_jax.sampling.negatives import unseen_of_shared
from hlr_jax.sampling.samplers import HISTORIES, Examples, Sampler
from hlr_jax.sampling.sources import SamplingSource, Source, TripletSource, UserSource
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
    if isinstance(source, UserSource):
        return _batch_of_users(drawing, source, rows, valid)
    users, positives = source.users[rows], source.items[rows]
    numbers = source.first + rows.astype(jnp.uint32)
    examples = Examples(key, step, users, positives, valid, numbers, axes)
    history = _histories(drawing, source, examples, source.position[rows])
    weight = _weight(drawing, source, users, valid)
    return TripletBatch(users, positives, drawing.sampler.draw(examples, source), history, weight)


def _histories(
    drawing: Drawing, source: TripletSource, examples: Examples, position: Int[Array, "b"]
) -> HistoryIds:
    length = drawing.history_length
    if not length:
        return HistoryIds.empty(len(examples.users))
    return jax.vmap(
        lambda k, u, p: sample_history(k, source.history, source.history_choice, u, p, length)
    )(examples.keys(HISTORIES), examples.users, position)


def _batch_of_users(
    drawing: Drawing, source: UserSource, rows: Int[Array, "b"], valid: Bool[Array, "b"]
) -> UserBatch:
    """Take all positives of some users, with the rest of the catalogue as their negatives."""
    users = source.users[rows]
    targets = jnp.arange(source.num_items, dtype=jnp.int32)
    unseen = others = unseen_of_shared(targets, source.seen, users, source.num_items)
    if not source.are_all_seen:
        others = unseen_of_shared(targets, source.positives, users, source.num_items)
    weight = _weight(drawing, source, users, valid)
    return UserBatch(users, targets, ~others, unseen, HistoryIds.empty(len(users)), weight)


def _weight(
    drawing: Drawing, source: SamplingSource, users: Int[Array, "b"], valid: Bool[Array, "b"]
) -> Float[Array, "b"]:
    """Weigh rows by `(training interactions of the user)^-exponent`; padding by 0."""
    counts = jnp.maximum(source.history.counts(users), 1).astype(jnp.float32)
    return jnp.where(valid, counts**-drawing.user_weight_exponent, 0)

"""The types that rooms hand to each other: parameters, histories, negatives and batches.

Shapes: `B` rows of a batch, `K` negatives per example, `N` items that a batch shares, `P` places of
a history, `d` the embedding size. Where a model reads no history, or a batch has no items of its
own, the arrays have a size of 0 along that axis: nothing is None.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# {"user": [U, d], "item": [I, d], "relation": the module's own parameters}; "user" is as wide as
# the model says, [U, 0] where users have no rows.
Params = dict[str, Any]


class History(NamedTuple):
    """Rows of the items in users' histories.

    Attributes:
      rows: `[*b, P, d]`; at a masked place stands any finite row.
      mask: `[*b, P]`; True where a row counts. The target item is never among those.
    """

    rows: Float[Array, "*b p d"]
    mask: Bool[Array, "*#b p"]

    @classmethod
    def empty(cls, rows: Float[Array, "*b d"]) -> "History":
        """Make histories without a place (P = 0), one beside each of these rows."""
        return cls(rows[..., None, :][..., :0, :], jnp.zeros((*rows.shape[:-1], 0), bool))

    def joined(self, other: "History") -> "History":
        """Put the rows of another history behind these; batch axes broadcast."""
        if not self.rows.shape[-2]:
            return other
        batch = jnp.broadcast_shapes(self.rows.shape[:-2], other.rows.shape[:-2])
        rows = [jnp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (self.rows, other.rows)]
        batch = jnp.broadcast_shapes(self.mask.shape[:-1], other.mask.shape[:-1])
        mask = [jnp.broadcast_to(x, (*batch, x.shape[-1])) for x in (self.mask, other.mask)]
        return History(jnp.concatenate(rows, axis=-2), jnp.concatenate(mask, axis=-1))

    def for_targets(self) -> "History":
        """Add an axis for the targets that share each history."""
        return History(self.rows[..., None, :, :], self.mask[..., None, :])


class HistoryIds(NamedTuple):
    """Items in users' histories, by id.

    Attributes:
      items: `[*b, P]`; 0 at masked places.
      mask: `[*b, P]`; which places hold an item.
    """

    items: Int[Array, "*b p"]
    mask: Bool[Array, "*b p"]

    @classmethod
    def empty(cls, count: int) -> "HistoryIds":
        """Make `count` histories without a place (P = 0)."""
        return cls(jnp.zeros((count, 0), jnp.int32), jnp.zeros((count, 0), bool))


class PerExampleNegatives(NamedTuple):
    """Negatives that each positive of a batch has for itself.

    Attributes:
      items: `[B, K]`.
      mask: `[B, K]`; which of them count.
    """

    items: Int[Array, "b k"]
    mask: Bool[Array, "b k"]


class SharedNegatives(NamedTuple):
    """Negatives that all positives of a batch share.

    Attributes:
      items: `[N]`.
      mask: `[B, N]`; which of them count for each positive: those its user has not seen, and of
        equal ones the first.
    """

    items: Int[Array, "n"]
    mask: Bool[Array, "b n"]


class RowIds(NamedTuple):
    """One value for each use of a table's row in a batch: its id, its place, or the row itself.

    Attributes:
      user: `[B, ...]`.
      items: `[B, n, ...]`; a positive and its own negatives, or none (n = 0).
      history: `[B, P, ...]`.
      shared: `[N, ...]`; items that all rows of the batch share, or none (N = 0).
    """

    user: Array
    items: Array
    history: Array
    shared: Array


class TripletBatch(NamedTuple):
    """Positive interactions, each with its negatives.

    Attributes:
      users: `[B]`.
      positives: `[B]`.
      negatives: of each positive.
      history: of each user, without the positive.
      weight: `[B]`; how much each positive counts, 0 for padding.
    """

    users: Int[Array, "b"]
    positives: Int[Array, "b"]
    negatives: PerExampleNegatives | SharedNegatives
    history: HistoryIds
    weight: Float[Array, "b"]

    def row_ids(self) -> RowIds:
        """List the ids of all rows that the batch uses."""
        items, shared = self.positives[:, None], jnp.zeros((0,), jnp.int32)
        if isinstance(self.negatives, SharedNegatives):
            shared = self.negatives.items
        else:
            items = jnp.concatenate([items, self.negatives.items], axis=1)
        return RowIds(self.users, items, self.history.items, shared)

    def with_items(self, ids: RowIds) -> "TripletBatch":
        """Number the items of the batch otherwise."""
        own = ids.shared if isinstance(self.negatives, SharedNegatives) else ids.items[:, 1:]
        return self._replace(
            positives=ids.items[:, 0],
            negatives=self.negatives._replace(items=own),
            history=self.history._replace(items=ids.history),
        )


class UserBatch(NamedTuple):
    """Users, each with all of its positives among items that they share as targets.

    Attributes:
      users: `[B]`.
      items: `[N + R]`; the N targets, and items that stand in histories only (R = 0 where all that
        do are targets).
      is_positive: `[B, N]`; which of the targets are positives of each user. Of equal targets only
        the first is.
      is_negative: `[B, N]`; which of them the user has not seen, likewise.
      history: of each user, by places among `items`. A target is left out of its own history.
      weight: `[B]`; how much each positive of a user counts, 0 for padding.
    """

    users: Int[Array, "b"]
    items: Int[Array, "n_plus_r"]
    is_positive: Bool[Array, "b n"]
    is_negative: Bool[Array, "b n"]
    history: HistoryIds
    weight: Float[Array, "b"]

    def row_ids(self) -> RowIds:
        """List the ids of all rows that the batch uses."""
        none = jnp.zeros((len(self.users), 0), jnp.int32)
        return RowIds(self.users, none, none, self.items)

    def with_items(self, ids: RowIds) -> "UserBatch":
        """Number the items of the batch otherwise."""
        return self._replace(items=ids.shared)


Batch = TripletBatch | UserBatch


def used_items(batch: Batch, num_items: int) -> Int[Array, "m"]:
    """List every item that a batch uses; `num_items` stands for a use that does not count.

    Padding and empty places of histories do not count. `split_items` puts values of this list
    back to where the items stand in the batch.
    """
    ids, counts = batch.row_ids(), batch.weight[:, None] > 0
    own = jnp.where(counts, ids.items, num_items)
    history = ids.history
    if isinstance(batch, TripletBatch):
        history = jnp.where(batch.history.mask & counts, history, num_items)
    return jnp.concatenate([own.reshape(-1), history.reshape(-1), ids.shared])


def split_items(ids: RowIds, values: Int[Array, "m"]) -> RowIds:
    """Put values of `used_items` back to where the items stand in a batch; users stay."""
    own, history = ids.items.size, ids.history.size
    return RowIds(
        ids.user,
        values[:own].reshape(ids.items.shape),
        values[own : own + history].reshape(ids.history.shape),
        values[own + history :],
    )

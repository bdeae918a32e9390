"""Hold on the device what batches are drawn from: who has which items, and how items are drawn."""

from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Int, UInt32

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.kernels.sizes import power_of_two

# Of rounded sizes.
_FEWEST = 256


class DeviceInteractions(struct.PyTreeNode):
    """Interactions on the device; or of several devices, with a leading axis of these.

    Attributes:
      offsets: `[U + 1]` int32; user `u` owns `items[offsets[u]:offsets[u + 1]]`, increasing.
      items: `[N]` int32.
      oldest_first: `[N]` int32; places of a user's items in order of time. `[0]` where it is not
        known.
      ranks: likewise; where among these each item stands.
      longest: the most items any user has; fixed at compile time, it bounds searches.
    """

    offsets: Any
    items: Any
    oldest_first: Any
    ranks: Any
    longest: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, interactions: Interactions) -> "DeviceInteractions":
        oldest_first, ranks = map(int32s, interactions.oldest_first())
        return cls(
            int32s(interactions.offsets),
            int32s(interactions.items),
            oldest_first,
            ranks,
            int(interactions.counts.max(initial=0)),
        )

    @classmethod
    def rounded(cls, interactions: Interactions) -> "DeviceInteractions":
        """As `of`, with sizes that are powers of two, for programs that serve many requests.

        Users that fill up have nothing. Up to some size all histories are of one.
        """
        sizes = len(interactions), interactions.counts.max(initial=0)
        number, longest = (max(_FEWEST, power_of_two(int(size))) for size in sizes)
        users = power_of_two(interactions.num_users)
        offsets = np.pad(interactions.offsets, (0, users - interactions.num_users), mode="edge")
        items = np.pad(interactions.items, (0, number - len(interactions)))
        # Where times are not known there is nothing to fill up.
        missing = number - len(interactions) if interactions.has_times else 0
        oldest_first, ranks = (int32s(np.pad(x, (0, missing))) for x in interactions.oldest_first())
        return cls(int32s(offsets), int32s(items), oldest_first, ranks, longest)

    def counts(self, users: Int[Array, "b"]) -> Int[Array, "b"]:
        """Count the items of each of these users."""
        return self.offsets[users + 1] - self.offsets[users]


class SamplingSource(struct.PyTreeNode):
    """What every batch is drawn from; by several devices, with a leading axis of these.

    Attributes:
      history: what a relation may see of a user.
      seen: what is never drawn as a negative.
      history_choice: how items of a longer history are chosen (`sampling.histories`).
      prepared: what the sampler of negatives made of all interactions (`Sampler.prepare`).
      num_items: `I`.
    """

    history: DeviceInteractions
    seen: DeviceInteractions
    history_choice: Any
    prepared: Any
    num_items: int = struct.field(pytree_node=False)


class TripletSource(SamplingSource):
    """Positive interactions, each of which gets negatives.

    Attributes:
      users, items: `[N]` int32; the positives.
      position: `[N]` int32; where the positive stands in its user's row of `history`; -1 where it
        does not.
      first: uint32; the number of the first positive, where these are a part of all: by their
        numbers positives draw the same wherever they are.
    """

    users: Any = struct.field()
    items: Any = struct.field()
    position: Any = struct.field()
    first: Any = struct.field()

    @classmethod
    def of_training(
        cls, base: SamplingSource, train: Interactions, first: int = 0
    ) -> "TripletSource":
        """Take training interactions, which are also the histories.

        Args:
          first: the number of the first interaction, if these are a part of all.
        """
        position = np.arange(len(train)) - np.repeat(train.offsets[:-1], train.counts)
        return cls(
            **vars(base),
            users=int32s(train.users),
            items=base.history.items,
            position=int32s(position),
            first=_number(first),
        )

    @classmethod
    def of_validation(
        cls, base: SamplingSource, valid: Interactions, first: int = 0
    ) -> "TripletSource":
        """Take validation interactions, which are in no history."""
        return cls(
            **vars(base),
            users=int32s(valid.users),
            items=int32s(valid.items),
            position=int32s(np.full(len(valid), -1)),
            first=_number(first),
        )


class UserSource(SamplingSource):
    """Users, each of whom a batch takes with all of its positives.

    Attributes:
      users: `[N]` int32; those who have positives.
      positives: of each user.
      first: uint32; the number of the first of these users, where they are a part of all: by their
        numbers they draw the same histories wherever they are.
      are_all_seen: whether the positives are just what is seen, as in training.
    """

    users: Any = struct.field()
    positives: DeviceInteractions = struct.field()
    first: Any = struct.field()
    are_all_seen: bool = struct.field(pytree_node=False, default=True)

    @classmethod
    def of_training(cls, base: SamplingSource, train: Interactions, first: int = 0) -> "UserSource":
        """Take the users of training interactions, which are all that is seen."""
        users = int32s(np.flatnonzero(train.counts))
        return cls(**vars(base), users=users, positives=base.seen, first=_number(first))

    @classmethod
    def of_validation(
        cls, base: SamplingSource, valid: Interactions, first: int = 0
    ) -> "UserSource":
        """Take the users of validation interactions; training ones are seen too."""
        users, of_each = int32s(np.flatnonzero(valid.counts)), DeviceInteractions.of(valid)
        number = _number(first)
        return cls(**vars(base), users=users, positives=of_each, first=number, are_all_seen=False)


Source = TripletSource | UserSource


def union_of_splits(train: Interactions, valid: Interactions) -> Interactions:
    """Join training and validation interactions.

    Raises:
      InputError: a validation pair is also a training pair.
    """
    seen = train.union(valid)
    if len(seen) < len(train) + len(valid):
        raise InputError(
            f"{len(train) + len(valid) - len(seen)} pairs are both in the training and the "
            "validation split; a pair belongs to one split"
        )
    return seen


def int32s(values: np.ndarray) -> Int[Array, "..."]:
    """Put whole numbers on the device, converted by NumPy, which need not compile that."""
    return jax.device_put(values.astype(np.int32))


def _number(first: int) -> UInt32[Array, ""]:
    # Beyond 2^32 numbers come again; two interactions of a step hardly ever share one then.
    return jax.device_put(np.uint32(first % 2**32))

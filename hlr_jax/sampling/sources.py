"""What is drawn from, on the device: who has which items, and how likely each is to be drawn."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError


class Rows(struct.PyTreeNode):
    """Interactions on the device; or of several devices, with a leading axis of these.

    Attributes:
      offsets: `[U + 1]` int32; user `u` owns `items[offsets[u]:offsets[u + 1]]`, increasing.
      items: `[N]` int32.
      longest: the most items any user has; fixed at compile time, it bounds searches.
    """

    offsets: Any
    items: Any
    longest: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, interactions: Interactions) -> "Rows":
        return cls(
            jnp.asarray(interactions.offsets, jnp.int32),
            jnp.asarray(interactions.items, jnp.int32),
            int(interactions.counts.max(initial=0)),
        )


class Weights(struct.PyTreeNode):
    """How likely an item is as a negative, in whole numbers: sums of them are exact.

    Attributes:
      before: `[I]` int32; the weights of all items below each, added up.
      total: int32; of all items, below 2^31.
      seen_before: `[N + 1]` uint32; the weights of the entries of `Source.seen` before each,
        modulo 2^32. Differences within a user are exact.
    """

    before: Any
    total: Any
    seen_before: Any

    @classmethod
    def of(cls, popularity: Int[np.ndarray, "i"], skew: float, seen: Interactions) -> "Weights":
        """Proportional to `popularity^skew`, rounded down to whole parts of 2^30, but at least one.

        Popularity counts training interactions; an item without any counts as 1.
        """
        share = np.maximum(popularity, 1).astype(np.float64) ** skew
        weights = np.maximum(np.floor(share * (2**30 / share.sum())), 1).astype(np.int64)
        upto = np.cumsum(weights)
        seen_upto = np.cumsum(weights[seen.items])
        return cls(
            jnp.asarray(upto - weights, jnp.int32),
            jnp.asarray(upto[-1], jnp.int32),
            jnp.asarray(np.append(0, seen_upto) % 2**32, jnp.uint32),
        )


class Source(struct.PyTreeNode):
    """What triplets are drawn from; by several devices, with a leading axis of these.

    Attributes:
      users, items: `[N]` int32; the positives. Items are None where users are taken, each with all
        of its positives.
      position: `[N]` int32; where the positive stands in its user's row of `history`; -1 where it
        does not.
      history: what a relation may see of a user.
      seen: what is never drawn as a negative.
      log_weights: `[I]` float32; log of the unnormalised probability of being chosen for a
        history. None chooses uniformly.
      weights: of items as negatives; None draws them uniformly.
      first: uint32; the number of the first positive, where these are a part of all: by their
        numbers positives draw the same wherever they are.
      num_items: `I`.
      features: `[I, F]` float32; of the items, where training reads them.
      positives: of each user, where users are taken; None for all that is seen.
    """

    users: Any
    items: Any
    position: Any
    history: Rows
    seen: Rows
    log_weights: Any
    weights: Any
    first: Any
    num_items: int = struct.field(pytree_node=False)
    features: Any = None
    positives: Rows | None = None

    def of_users(
        self, counts: Int[np.ndarray, "u"], positives: Interactions | None = None
    ) -> "Source":
        """The same, of which a step takes users, each with all of its positives.

        Args:
          counts: positives of each user; who has none is not taken.
          positives: None for all that is seen.
        """
        users = jnp.asarray(np.flatnonzero(counts), jnp.int32)
        of_each = None if positives is None else Rows.of(positives)
        return self.replace(users=users, items=None, position=None, positives=of_each)


def history_log_weights(kind: str, popularity: Int[np.ndarray, "i"]) -> Float[Array, "i"] | None:
    """`config.sampling.history` as log weights: None for uniform, `-log popularity` for unpopular.

    Popularity counts training interactions; an item without any counts as 1.
    """
    if kind == "uniform":
        return None
    return -jnp.log(jnp.asarray(np.maximum(popularity, 1), jnp.float32))


def training_source(
    train: Interactions,
    log_weights: Float[Array, "i"] | None = None,
    first: int = 0,
    skew: float = 0.0,
    popularity: Int[np.ndarray, "i"] | None = None,
    features: Float[np.ndarray, "i f"] | None = None,
) -> Source:
    """The training interactions: histories and negatives both go by them.

    Args:
      first: the number of the first interaction, if these are a part of all.
      skew, popularity: negatives are drawn in proportion to `popularity^skew`; 0 uniformly.
      features: of the items, for a model that reads them.
    """
    rows = Rows.of(train)
    position = np.arange(len(train)) - np.repeat(train.offsets[:-1], train.counts)
    return Source(
        jnp.asarray(train.users),
        rows.items,
        jnp.asarray(position, jnp.int32),
        rows,
        rows,
        log_weights,
        _weights(skew, popularity, train),
        _number(first),
        train.num_items,
        None if features is None else jnp.asarray(features, jnp.float32),
    )


def validation_source(
    train: Interactions,
    valid: Interactions,
    log_weights: Float[Array, "i"] | None = None,
    first: int = 0,
    skew: float = 0.0,
    popularity: Int[np.ndarray, "i"] | None = None,
) -> Source:
    """The validation interactions, with training histories; negatives are in neither.

    Takes the further arguments of `training_source`, but for features, which no loss reads here.

    Raises:
      InputError: a validation pair is also a training pair.
    """
    seen = train.union(valid)
    if len(seen) < len(train) + len(valid):
        raise InputError(
            f"{len(train) + len(valid) - len(seen)} pairs are both in the training and the "
            "validation split; a pair belongs to one split"
        )
    return Source(
        jnp.asarray(valid.users),
        jnp.asarray(valid.items),
        jnp.full(len(valid), -1, jnp.int32),
        Rows.of(train),
        Rows.of(seen),
        log_weights,
        _weights(skew, popularity, seen),
        _number(first),
        train.num_items,
    )


def _weights(
    skew: float, popularity: Int[np.ndarray, "i"] | None, seen: Interactions
) -> Weights | None:
    if not skew:
        return None
    assert popularity is not None
    return Weights.of(popularity, skew, seen)


def _number(first: int) -> UInt32[Array, ""]:
    # Beyond 2^32 numbers come again; two interactions of a step hardly ever share one then.
    return jnp.asarray(first % 2**32, jnp.uint32)

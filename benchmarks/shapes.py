"""Define the sizes that are measured, made-up interactions of them, and the flops of a step."""

import dataclasses

import numpy as np

from hlr_jax.data import Interactions

_SEED = 2021
MODELS = ("cml", "lrml", "hlr", "hlrpp")
# Users, items and draws. What is left of ML-1M's ratings of 4 and 5 for training is 400,000
# pairs, of ML-20M's 7 million; draws that fall on the same pair merge.
DATASETS = {"ml-1m": (6_031, 3_260, 415_000), "ml-20m": (138_000, 13_000, 7_200_000)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and the sizes of its step, by default those of the published HLR configurations.

    Attributes:
      dim, slots: `d` and `M`.
      history_length, negatives: `P` and `K`.
      batch_size: `B`.
    """

    model: str
    dim: int = 100
    slots: int = 20
    history_length: int = 50
    negatives: int = 1
    batch_size: int = 1000

    @property
    def has_memory(self) -> bool:
        return self.model != "cml"

    @property
    def has_history(self) -> bool:
        return self.model in ("hlr", "hlrpp")


def made_up(num_users: int, num_items: int, draws: int, seed: int = _SEED) -> Interactions:
    """Make up skewed interactions: small ids are the active users and the popular items.

    Raises:
      ValueError: there are so many draws that somebody has seen every item.
    """
    rng = np.random.default_rng(seed)
    # u ** p puts density x ** (1 / p - 1) on place x.
    users = (num_users * rng.random(draws) ** 1.5).astype(np.int64)
    items = (num_items * rng.random(draws) ** 2).astype(np.int64)
    interactions = Interactions.from_pairs(users, items, num_users, num_items)
    if interactions.counts.max(initial=0) >= num_items:
        raise ValueError(f"{draws} draws are too many for {num_users} users, {num_items} items")
    return interactions


def useful_flops(shape: Shape) -> float:
    """Count the floating-point operations that a training step of this shape cannot do without.

    Counted are the matrix products of the factorised relation (`w_k = s_k . (memory @ u)`, so
    relations `[P, d]` need not exist), the products of vectors that go into them, and the
    distances; backward at twice forward. Softmax, sampling, projection and the optimizer count
    for nothing.
    """
    items, references = 1 + shape.negatives, shape.history_length
    d, m = shape.dim, shape.slots
    slot_weights = d + 2 * d * m  # of one pair: (x * y) @ key
    through_memory = 2 * d * m  # memory @ query, or slots @ memory
    attention = 4 * m  # of one reference: its logit, and its part of the sum

    distances = items * 4 * d
    if shape.model == "cml":
        forward = 0
    elif shape.model == "lrml":
        forward = items * (slot_weights + through_memory)
    elif shape.model == "hlr":
        per_item = (references + 1) * (slot_weights + attention) + through_memory
        forward = items * per_item + through_memory
    elif shape.model == "hlrpp":
        by_user = references * (slot_weights + attention)
        # The user's relations to the history are the same for every item.
        by_item = slot_weights + (references + 1) * attention + 2 * through_memory
        forward = items * (by_user + by_item) + references * slot_weights + through_memory
    else:
        raise ValueError(f"unknown model {shape.model!r}")
    return 3.0 * shape.batch_size * (forward + distances)


def useful_bytes(shape: Shape, table_rows: int) -> float:
    """Count the bytes that a training step of this shape cannot do without moving.

    Counted are the rows that a batch reads, and Adam's passes over all rows: parameters and two
    moments, read and written. Gradients could stay in a cache, and count for nothing.
    """
    read = 2 + shape.negatives + (shape.history_length if shape.has_history else 0)
    return 4.0 * shape.dim * (shape.batch_size * read + 6 * table_rows)

"""A small data set with planted groups of users and items, for tests of training and of sweeps."""

import numpy as np

from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions

GROUPS = 3


def planted_of(num_users: int, num_items: int, until: tuple[int, int, int]) -> Dataset:
    """Users and items of three groups; a user likes items of its group, in random order.

    Args:
      until: where in this order its items of training, of validation, and of test end.
    """
    generator = np.random.default_rng(0)
    splits: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(num_users):
        own = generator.permutation(np.arange(user % GROUPS, num_items, GROUPS)).tolist()
        for split, start, end in zip(splits, (0, *until[:2]), until, strict=True):
            split += [(user, item) for item in own[start:end]]
    parts = [
        Interactions.from_pairs(*np.array(pairs).T, num_users=num_users, num_items=num_items)
        for pairs in splits
    ]
    return Dataset("planted", *parts, user_ids=np.arange(num_users), item_ids=np.arange(num_items))

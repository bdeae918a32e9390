"""Divide users into batches of equal sizes, and read results of batches late."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from hlr_jax.kernels.sizes import FEW_USERS

# Many users of a group come in a multiple of it.
_MULTIPLE = 16

# Places of a batch's users: of each group of devices, those it ranks for.
Places = list[Int[np.ndarray, "_"]]


def divide(of_groups: Places, most: int) -> tuple[list[Places], int]:
    """Divide the users of each group of devices into batches; and choose the size of these.

    Args:
      of_groups: places of the users of each group.
      most: users of a batch of all groups together.
    """
    longest = max(map(len, of_groups))
    size = _batch_size(longest, most, len(of_groups))
    starts = range(0, longest, size)
    return [[group[start : start + size] for group in of_groups] for start in starts], size


def largest_batch(fits: int, groups: int) -> int:
    """Choose the largest batch of all groups, so that none gets more users than fit.

    Args:
      fits: the most users of a group.
      groups: how many; fewer users than `FEW_USERS` make one.
    """
    batch = fits // _MULTIPLE * _MULTIPLE * groups
    return batch if batch >= FEW_USERS else min(fits, FEW_USERS - 1)


def padded(users: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "size"]:
    """Fill users up to a number of them, by any."""
    return np.resize(users, size) if len(users) else np.zeros(size, np.int32)


def late(values: Iterator[Any], by: int) -> Iterator[Any]:
    """Yield each value once so many more have been asked for."""
    waiting = collections.deque[Any]()
    for value in values:
        waiting.append(value)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


def _batch_size(users: int, most: int, groups: int) -> int:
    """Divide the users of a group into equal batches; many come in multiples of `_MULTIPLE`.

    Args:
      users: of the group.
      most: users of a batch of all groups together.
    """
    per_group = max(1, most // groups)
    batches = max(1, -(-users // per_group))
    size = max(1, -(-users // batches))
    multiple = _MULTIPLE if most >= FEW_USERS else 1
    return -(-size // multiple) * multiple

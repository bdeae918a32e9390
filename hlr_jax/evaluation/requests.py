"""Round the sizes of requests, so that few programs are compiled whatever is asked for."""

import numpy as np
from jaxtyping import Int

_FEWEST_RANKED = 16
# Users are filled up to a power of two, more of them to a multiple of this.
_MANY = 1024


def ranked(k: int, num_items: int) -> int:
    """Choose how many items to rank where k are asked for."""
    return min(max(power_of_two(k), _FEWEST_RANKED), num_items)


def filled_up(rows: Int[np.ndarray, "n"], batch_size: int) -> Int[np.ndarray, "m"]:
    """Fill rows up by any, to one of few sizes.

    Args:
      batch_size: rows that are taken together; beyond it all batches are whole.
    """
    multiple = _MANY if len(rows) <= batch_size else batch_size
    size = power_of_two(len(rows))
    if size > _MANY:
        size = -(-len(rows) // multiple) * multiple
    return np.resize(rows, size)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()

"""How much to work on at once: what fits into fast memory of the device."""

from typing import NamedTuple

import jax

# Items merged into the best at once when ranking, a multiple of 8.
RANKING_TILE = 512
# Fewer users than this are ranked on one device.
FEW_USERS = 64
# Most bytes of a batch's mask of seen items, packed; and of a part of it before it is packed.
MASK_BYTES = 2**28
UNPACKED_BYTES = 2**22

# What a slice of a batch may hold of embedding rows on a CPU: half of a usual core's L2 cache,
# so that all that happens between gathering them and adding up their gradients stays inside it.
_SLICE_BYTES = 2**19
# Rows of a slice, at least, where they share items: their distances are a matrix product.
_SHARED_SLICE = 128
# Places of an epoch's order to shuffle at once on a CPU: its loops over few are not vectorised
# alone, over many they leave the cache.
_ORDER_SLICE = 2**15
# Interactions to add up at once on a CPU, so that their rows stay in a core's cache.
_NEIGHBOR_SLICE = 256


class Sizes(NamedTuple):
    """How much to score at once.

    Attributes:
      floats: numbers that a block of rows holds.
      items: most items of a tile.
    """

    floats: int
    items: int


def scoring_sizes() -> Sizes:
    """Choose for ranking: on CPU a block, half a MiB, stays in a core's own cache."""
    return Sizes(2**17, 32) if is_cpu() else Sizes(2**24, 64)


def table_tile(rows: int, slots: int) -> int:
    """Choose how many items to score at once where slot weights `[rows, M, T]` are looked up.

    On CPU these should stay in the cache that cores share.
    """
    floats, most = scoring_sizes()
    fit = 32 * floats // (rows * slots)
    return max(4, min(most, 1 << max(fit, 1).bit_length() - 1))


def batch_slice(batch_size: int, row_floats: int, shares_items: bool) -> int:
    """Choose how many rows of a batch to take together: all, but on a CPU what its cache holds.

    Args:
      row_floats: numbers of the embedding rows that a row of the batch reads for itself.
      shares_items: whether the batch has shared items too.
    """
    most = max(1, _SLICE_BYTES // (4 * max(row_floats, 1)))
    return _equal_slices(batch_size, max(most, _SHARED_SLICE) if shares_items else most)


def user_slice(batch_size: int, places: int) -> int:
    """Choose how many users of a batch of users to take together.

    Args:
      places: of a user's history.
    """
    return _equal_slices(batch_size, max(1, 2 * _SHARED_SLICE // (2 + places)))


def _equal_slices(batch_size: int, most: int) -> int:
    """Divide a batch into the fewest equal slices that are small enough; on accelerators not."""
    return -(-batch_size // -(-batch_size // most)) if is_cpu() else batch_size


def target_tile(pairs: int) -> int:
    """Choose how many targets to compare with all others at once.

    Args:
      pairs: of users and targets.
    """
    floats = 2**22 if is_cpu() else 2**28
    return max(1, floats // max(pairs, 1))


def pair_tile(pair_floats: int, items: int) -> int:
    """Choose how many items to measure at once where a relation is computed for each pair.

    Args:
      pair_floats: numbers that an item holds with all users.
    """
    floats = 2**22 if is_cpu() else 2**28
    return max(1, min(items, floats // max(pair_floats, 1)))


def neighbor_slice(interactions: int) -> int:
    """Choose how many interactions to add up at once for the means of neighbours."""
    return max(1, min(_NEIGHBOR_SLICE, interactions) if is_cpu() else interactions)


def order_slice(places: int) -> int:
    """Choose how many places of an epoch's order to shuffle at once."""
    return max(1, min(_ORDER_SLICE, places) if is_cpu() else places)


def is_cpu() -> bool:
    """Tell whether programs are made for a CPU; else for an accelerator."""
    return jax.default_backend() == "cpu"

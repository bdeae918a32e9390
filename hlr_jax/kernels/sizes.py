"""How much to work on at once: what fits into fast memory of the device."""

from typing import NamedTuple

import jax

# Items merged into the best at once when ranking on a CPU.
RANKING_TILE = 512
# On accelerators a multiple of the first number of them (if there are as many), such that a tile's
# scores are no more than the second: 256 MiB.
_ITEMS_UNIT, _TILE_SCORES = 512, 2**26
# Fewer users than this are ranked on one device.
FEW_USERS = 64

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
      table: numbers in a table of slot weights `[rows, M, T]` that are looked up.
      items: most items `T` of a tile that such tables, or relations, are computed for.
    """

    floats: int
    table: int
    items: int


def scoring_sizes() -> Sizes:
    """Choose for ranking: on CPU a block, half a MiB, stays in a core's own cache.

    And a table, 16 MiB, in the cache that cores share. On accelerators either takes half a GiB:
    then there are few steps one after another, each of them long compared with its start.
    """
    return Sizes(2**17, 2**22, 32) if is_cpu() else Sizes(2**27, 2**27, 512)


def table_tile(rows: int, slots: int) -> int:
    """Choose how many items to score at once where slot weights `[rows, M, T]` are looked up."""
    _, table, most = scoring_sizes()
    fit = table // (rows * slots)
    return max(4, min(most, 1 << max(fit, 1).bit_length() - 1))


def block_rows(rows: int, floats: int) -> int:
    """Choose how many rows to score together where each of them takes so many numbers.

    On CPU XLA makes much slower code of a single row, or of a number that leaves a remainder. On
    accelerators blocks are equal, so that none is left over where their number divides the rows.
    """
    most = scoring_sizes().floats // floats
    if is_cpu():
        return 1 << max(2, most).bit_length() - 1
    blocks = -(-rows // max(1, most))
    return max(1, -(-rows // max(1, blocks)))


def scores_single_rows() -> bool:
    """Whether to score row by row what no block makes faster on a CPU."""
    return is_cpu()


def ranking_tile(users: int, items: int) -> int:
    """Choose how many items to merge into the best of so many users at once.

    Args:
      items: of a shard, whose tiles are equal.
    """
    if is_cpu():
        return min(RANKING_TILE, -(-items // 8) * 8)
    units = -(-items // _ITEMS_UNIT)
    most = max(1, _TILE_SCORES // (max(users, 1) * _ITEMS_UNIT))
    tile = _ITEMS_UNIT * -(-units // -(-units // most))
    return min(tile, -(-items // 64) * 64)


def top_k_group(width: int, k: int) -> int:
    """Choose how many neighbouring scores to take the largest of before finding the k best.

    1 finds them among all, as on a CPU, which need not sort for that. On accelerators groups of
    `g` with `g^2 k <= width`, so that there are more groups than are looked into.
    """
    group = 1
    while not is_cpu() and width % (2 * group) == 0 and 4 * group * group * k <= width:
        group *= 2
    return group


def batches_ahead() -> int:
    """Choose how many batches of users to begin before a result is waited for."""
    return 0 if is_cpu() else 1


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


def pair_tile(item_floats: int) -> int:
    """Choose how many items to measure, or to compare with all others, at once.

    Args:
      item_floats: numbers that an item holds with all users.
    """
    floats = 2**22 if is_cpu() else 2**28
    return max(1, floats // max(item_floats, 1))


def neighbor_slice(interactions: int) -> int:
    """Choose how many interactions to add up at once for the means of neighbours."""
    return max(1, min(_NEIGHBOR_SLICE, interactions) if is_cpu() else interactions)


def order_slice(places: int) -> int:
    """Choose how many places of an epoch's order to shuffle at once."""
    return max(1, min(_ORDER_SLICE, places) if is_cpu() else places)


def is_cpu() -> bool:
    """Tell whether programs are made for a CPU; else for an accelerator."""
    return jax.default_backend() == "cpu"


def power_of_two(number: int) -> int:
    """Round up to a power of two, so that programs are compiled for few sizes."""
    return 1 << max(number - 1, 0).bit_length()

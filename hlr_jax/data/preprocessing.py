"""Pure functions between reading and splitting: filter, merge, k-core, dense ids.

Frames have the columns of `hlr_jax.data.readers.read_table`: `user`, `item` and maybe
`rating` and `timestamp`. The order of rows is kept throughout.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from hlr_jax.errors import InputError

# A table over the whole range of integer ids is built when it has at most this many entries
# per row of the frame (or _SMALL_RANGE entries): one look-up per row instead of a sort.
_RANGE_PER_ROW = 4
_SMALL_RANGE = 2**20


class Encoded(NamedTuple):
    """Interactions with dense ids.

    Attributes:
      users: `[N]` int32, below `U`.
      items: `[N]` int32, below `I`.
      user_ids: `[U]` raw ids, increasing (int64, or fixed-width text); user `u` is `user_ids[u]`.
      item_ids: `[I]` raw ids, increasing.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray


def keep_rated(frame: pl.DataFrame, minimum: float | int) -> pl.DataFrame:
    """Keep the rows rated at least `minimum`.

    Raises:
      InputError: the frame has no ratings, or none is high enough.
    """
    if "rating" not in frame.columns:
        raise InputError(
            f"config.data.min_rating={minimum}: the data has no rating column; name it in "
            "config.data.rating_column or leave config.data.min_rating out"
        )
    kept = frame.filter(pl.col("rating") >= minimum)
    if not kept.height:
        highest = frame["rating"].to_numpy().max(initial=-np.inf)
        raise InputError(
            f"config.data.min_rating={minimum}: the highest rating is {highest}; use a lower one"
        )
    return kept


def merge_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per (user, item): the place of the first, the highest rating, the earliest time.

    Args:
      frame: `N` rows.

    Returns:
      At most `N` rows, in the order in which the pairs first appear.
    """
    keys = _pair_keys(frame)
    ascending = np.sort(keys)
    if (ascending[1:] != ascending[:-1]).all():
        return frame
    del ascending
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # [pairs]
    firsts = order[starts]  # the row where each pair first appears: the sort is stable
    reduced = []
    for name, reduction in (("rating", np.maximum), ("timestamp", np.minimum)):
        if name in frame.columns:
            values = frame[name].to_numpy().copy()
            values[firsts] = reduction.reduceat(values[order], starts)
            reduced.append(pl.Series(name, values))
    is_first = np.zeros(frame.height, bool)
    is_first[firsts] = True
    return frame.with_columns(reduced).filter(pl.Series(is_first))


def k_core(frame: pl.DataFrame, user_core: int, item_core: int) -> pl.DataFrame:
    """Keep users with `user_core` rows or more and items with `item_core`, until all have.

    Rows are counted, so merge duplicates first.

    Raises:
      InputError: nothing is left.
    """
    users, items = (_codes(frame[name])[0] for name in ("user", "item"))
    rows = np.arange(frame.height)
    while True:
        enough = (np.bincount(users) >= user_core)[users]
        enough &= (np.bincount(items) >= item_core)[items]
        if enough.all():
            break
        rows, users, items = rows[enough], users[enough], items[enough]
    if not rows.size:
        raise InputError(
            f"config.data.core: no interaction is left of {frame.height} when every user needs "
            f"{user_core} and every item {item_core}; use a smaller core"
        )
    return frame if rows.size == frame.height else frame[rows]


def encode(frame: pl.DataFrame) -> Encoded:
    """Number users and items from 0 in the order of their raw ids.

    Integer ids are ordered as numbers, others as text (by code point).
    """
    users, user_ids = _codes(frame["user"])
    items, item_ids = _codes(frame["item"])
    return Encoded(users, items, user_ids, item_ids)


def _codes(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """`[N]` int32 index of each id among the `[K]` different ids, which increase."""
    if ids.dtype == pl.Int64:
        return _integer_codes(ids.to_numpy())
    different = ids.unique().sort()
    codes = ids.cast(pl.Enum(different)).to_physical().to_numpy()
    # Fixed-width text, which NumPy saves and loads without pickling.
    return codes.astype(np.int32), different.to_numpy().astype(np.str_)


def _integer_codes(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not ids.size:
        return np.zeros(0, np.int32), ids
    low = int(ids.min())
    span = int(ids.max()) - low + 1
    if span > max(_RANGE_PER_ROW * ids.size, _SMALL_RANGE):
        different, codes = np.unique(ids, return_inverse=True)
        return codes.astype(np.int32), different
    present = np.zeros(span, bool)
    present[ids - low] = True
    index = np.cumsum(present, dtype=np.int32) - np.int32(1)  # [span]
    return index[ids - low], np.flatnonzero(present) + low


def _pair_keys(frame: pl.DataFrame) -> np.ndarray:
    """`[N]` int64, equal where user and item are."""
    encoded = encode(frame)
    return encoded.users.astype(np.int64) * encoded.item_ids.size + encoded.items

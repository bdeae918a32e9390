"""Filter interactions, merge duplicates, and number users and items from 0.

Data frames have the columns of `hlr_jax.data.readers.read_table`: `user`, `item` and maybe
`rating` and `timestamp`. All functions keep the order of rows.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from hlr_jax.data.interactions import NO_TIMES, some
from hlr_jax.errors import InputError

# Integer ids are numbered by a table over their whole range, which is quicker than sorting, if the
# table has at most this many entries per row of the frame, or at most _SMALL_RANGE entries.
_RANGE_PER_ROW = 4
_SMALL_RANGE = 2**20


class Encoded(NamedTuple):
    """Interactions whose users and items are numbered from 0.

    Attributes:
      users: `[N]` int32, below the number of users `U`.
      items: `[N]` int32, below the number of items `I`.
      user_ids: `[U]` raw ids, increasing; user `u` is `user_ids[u]`. Their type is int64, or
        fixed-width text.
      item_ids: `[I]` raw ids of items in the same way.
      times: `[N]` int32, larger where an interaction is later; `[0]` if they are not kept.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    times: np.ndarray = NO_TIMES


def keep_rated(frame: pl.DataFrame, minimum: float | int) -> pl.DataFrame:
    """Keep interactions that are rated at least `minimum`.

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
    """Merge rows of the same user and item into one.

    It has the place of the first of them, the highest rating and the earliest timestamp.

    Returns:
      A frame with one row per pair, in the order in which the pairs first appear.
    """
    keys = _pair_keys(frame)
    ascending = np.sort(keys)
    if (ascending[1:] != ascending[:-1]).all():
        return frame
    del ascending
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # [pairs]
    firsts = order[starts]  # [pairs] the first row of each pair, as the sort is stable
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
    """Drop users with fewer than `user_core` rows and items with fewer than `item_core`.

    This is repeated until all that are left have enough. Merge duplicates first, because rows are
    counted.

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


def encode(frame: pl.DataFrame, keep_times: bool = False) -> Encoded:
    """Number users and items from 0, in the order of their raw ids.

    Integer ids are ordered as numbers, other ids as text (by Unicode code point).

    Args:
      keep_times: number the interactions in order of time too, equal times in that of rows; the
        frame has to have times then.
    """
    users, user_ids = _codes(frame["user"])
    items, item_ids = _codes(frame["item"])
    if not keep_times:
        return Encoded(users, items, user_ids, item_ids)
    times = np.empty(frame.height, np.int32)
    order = np.argsort(frame["timestamp"].to_numpy(), kind="stable")
    times[order] = np.arange(frame.height, dtype=np.int32)
    return Encoded(users, items, user_ids, item_ids, times)


def chosen(encoded: Encoded, kept: np.ndarray) -> Encoded:
    """Keep the interactions `kept [N]` (true or false), and users and items that have any."""
    parts = []
    for codes, ids in ((encoded.users, encoded.user_ids), (encoded.items, encoded.item_ids)):
        present, inverse = np.unique(codes[kept], return_inverse=True)
        parts.append((inverse.astype(np.int32), ids[present]))
    (users, user_ids), (items, item_ids) = parts
    return Encoded(users, items, user_ids, item_ids, some(encoded.times, kept))


def _codes(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return `[N]` int32 indices of ids, and the `[K]` different ids they index, increasing."""
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
    """Return `[N]` int64 keys; two rows have the same key if they have the same user and item."""
    encoded = encode(frame)
    return encoded.users.astype(np.int64) * encoded.item_ids.size + encoded.items

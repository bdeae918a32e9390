"""Groups of interactions, from columns that say something of them: genres, ratings, times."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64, Int

from hlr_jax.data import times
from hlr_jax.errors import InputError

# As many as there are hours of a day. Of more values numbers are put together in quarters, and of
# texts the rarest.
MOST_GROUPS = 24
_REST = "others"
# Seconds since 1970 until the year 9999: what is larger counts something else.
_LAST = 253_370_764_800


class Grouping(NamedTuple):
    """Which group each of `N` interactions is in.

    Attributes:
      name: of what groups them.
      groups: their names, in order.
      shares: rows that add up to 1, because an item may be of several genres; or are 0 where the
        group is unknown.
    """

    name: str
    groups: tuple[str, ...]
    shares: Float64[np.ndarray, "n g"]


def groupings(columns: Mapping[str, pl.Series]) -> list[Grouping]:
    """Group interactions by each column; columns with a single value are left out.

    Numbers are groups by themselves if there are few, else their quarters are; so are texts, or
    lists of texts, as of genres. A column `timestamp` (seconds since 1970, dates, or texts as ISO
    8601 has them) becomes two, in UTC: `period`, by months or years, and `hour`.

    Raises:
      InputError: a timestamp is no time, or a column holds what is no text, as bytes.
    """
    found = []
    for name, values in columns.items():
        if name == "timestamp":
            found += _of_times(values)
        elif values.dtype.is_numeric():
            found.append(_of_numbers(name, values.cast(pl.Float64)))
        else:
            found.append(_of_texts(name, values))
    return [grouping for grouping in found if len(grouping.groups) > 1]


def _of_times(values: pl.Series) -> list[Grouping]:
    moments = _moments(values)
    wrong = values.is_not_null() & moments.is_null()
    if wrong.any():
        raise InputError(
            f"timestamp: {values.filter(wrong)[0]!r} is no time; give seconds since 1970, dates, "
            "or texts like 1998-04-22T23:10:38"
        )
    months = moments.dt.strftime("%Y-%m")
    is_short = months.drop_nulls().n_unique() <= MOST_GROUPS
    period = months if is_short else moments.dt.strftime("%Y")
    return [_of_texts("period", period), _of_texts("hour", moments.dt.strftime("%H"))]


def _moments(values: pl.Series) -> pl.Series:
    """Convert to datetimes; null where a value is no time."""
    if values.dtype.is_numeric():
        seconds = values.cast(pl.Float64)
        is_time = (seconds.is_finite() & (seconds.abs() < _LAST)).fill_null(False)
        return (seconds.set(~is_time, None) * 1e6).cast(pl.Int64).cast(pl.Datetime("us"))
    return times.dates(values).cast(pl.Datetime("us"))


def _of_numbers(name: str, values: pl.Series) -> Grouping:
    known = np.sort(values.filter(values.is_finite()).to_numpy())
    lows = different = np.unique(known)
    if len(different) > MOST_GROUPS:
        lows = np.unique(known[np.arange(4) * len(known) // 4])
    highs = np.append(different[np.searchsorted(different, lows[1:]) - 1], different[-1:])
    names = [
        f"{low:g}" if low == high else f"{low:g} to {high:g}"
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
    ]
    rows = np.flatnonzero(values.is_finite().fill_null(False).to_numpy())
    places = np.searchsorted(lows, values.gather(rows).to_numpy(), side="right") - 1
    return _grouped(name, names, len(values), rows, places)


def _of_texts(name: str, values: pl.Series) -> Grouping:
    frame = pl.DataFrame({"row": np.arange(len(values)), "text": values})
    if isinstance(values.dtype, pl.List):
        frame = frame.explode("text")
    try:
        frame = frame.with_columns(pl.col("text").cast(pl.String)).drop_nulls()
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{name}: cannot group by {values.dtype}; give numbers, texts or lists of texts"
        ) from None
    texts, rows = frame["text"].to_numpy(), frame["row"].to_numpy()
    names, places, counts = np.unique(texts, return_inverse=True, return_counts=True)
    groups = list(map(str, names))
    if len(groups) > MOST_GROUPS:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1])
        new = np.full(len(groups), len(kept))
        new[kept] = np.arange(len(kept))
        groups, places = [groups[place] for place in kept.tolist()] + [_REST], new[places]
    return _grouped(name, groups, len(values), rows, places)


def _grouped(
    name: str,
    groups: Sequence[str],
    count: int,
    rows: Int[np.ndarray, "k"],
    places: Int[np.ndarray, "k"],
) -> Grouping:
    """Share each row out among the groups that it stands beside."""
    shares = np.zeros((count, len(groups)))
    shares[rows, places] = 1
    total = shares.sum(axis=1, keepdims=True)
    return Grouping(name, tuple(groups), shares / np.where(total > 0, total, 1))

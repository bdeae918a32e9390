"""Data sets of data frames and sparse matrices that are in memory already."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import polars as pl
import scipy.sparse

from hlr_jax.config import DataConfig
from hlr_jax.data import titles as item_titles
from hlr_jax.data.columns import column, columns
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.loading import prepare
from hlr_jax.data.raw import RawInteractions
from hlr_jax.data.readers.columns import Table
from hlr_jax.data.resolve import ResolvedData
from hlr_jax.errors import InputError

# How errors name what `DataConfig` has as a field and `from_frame` as an argument.
_NAMES = {
    "config.data.rating_column": "rating",
    "config.data.timestamp_column": "timestamp",
    "config.data.": "",
}


class Rules(TypedDict, total=False):
    """How interactions are filtered and split; see the fields of `DataConfig` of these names.

    Attributes:
      split: a rule of `DataConfig.SPLITS` but `fixed`; None, or `none`, trains on everything.
    """

    min_rating: float | None
    core: int
    item_core: int | None
    split: str | None
    valid_fraction: float
    test_fraction: float
    split_seed: int
    keep_times: bool


def from_frame(frame: Any, roles: Mapping[str, str], rules: Rules) -> Dataset:
    """Make a data set of a data frame; see `Dataset.from_frame`.

    Args:
      roles: columns by role: `user`, `item` and maybe `rating` and `timestamp`.
    """
    found = columns(frame, roles)
    if not len(found["user"]):
        raise InputError("the frame has no rows; give at least one interaction")
    numbers = [role for role in ("rating", "timestamp") if role in found]
    checked = {role: column(role, found[role]) for role in ("user", "item")}
    if numbers:
        table = Table("the frame", {role: roles[role] for role in numbers})
        table.add(pl.DataFrame({role: found[role] for role in numbers}), _row)
        checked |= table.finish().to_dict()
    return _prepared(pl.DataFrame(checked), rules)


def from_csr(matrix: Any, user_ids: Any, item_ids: Any, rules: Rules) -> Dataset:
    """Make a data set of a sparse matrix; see `Dataset.from_csr`."""
    if not scipy.sparse.issparse(matrix) or matrix.ndim != 2:
        raise InputError(
            f"from_csr takes a sparse matrix of SciPy, not {type(matrix).__name__}; "
            "scipy.sparse.csr_matrix makes one"
        )
    pairs = matrix.tocoo()
    values = np.asarray(pairs.data)
    wrong = np.flatnonzero(~(values > 0) | ~np.isfinite(values))
    if wrong.size:
        at = wrong[0]
        raise InputError(
            f"the matrix has the entry {values[at]} at row {pairs.row[at]}, column "
            f"{pairs.col[at]}; entries are finite and above 0: leave others out, as "
            "matrix.eliminate_zeros() does with zeros"
        )
    if not values.size:
        raise InputError("the matrix has no entries; give at least one interaction")
    axes = zip(("user", "item"), (user_ids, item_ids), matrix.shape, strict=True)
    ids = {kind: _ids_of_axis(kind, given, size) for kind, given, size in axes}
    rows = {"user": pairs.row, "item": pairs.col}
    table = {kind: ids[kind].gather(rows[kind]) for kind in ids}
    rating = pl.Series("rating", values.astype(np.float64))
    return _prepared(pl.DataFrame({**table, "rating": rating}), rules)


def _prepared(frame: pl.DataFrame, rules: Rules) -> Dataset:
    known = Rules.__annotations__
    if unknown := [name for name in rules if name not in known]:
        raise InputError(f"{unknown[0]}: there is no such rule; there are {', '.join(known)}")
    settings = {name: value for name, value in rules.items() if value is not None}
    settings["split"] = rules.get("split", "random") or "none"
    try:
        config = DataConfig(name="frame", **settings)  # type: ignore[arg-type]
        core = config.core or 0
        resolved = ResolvedData(
            name="frame",
            kind="frame",
            min_rating=config.min_rating or 0.0,
            core=core,
            item_core=core if config.item_core is None else config.item_core,
            split=config.split,
        )
        return prepare(config, resolved, RawInteractions(frame))
    except InputError as error:
        text = str(error)
        for field, argument in _NAMES.items():
            text = text.replace(field, argument)
        raise InputError(text) from None


def _ids_of_axis(kind: str, given: Any, size: int) -> pl.Series:
    if given is None:
        return pl.Series(kind, np.arange(size, dtype=np.int64))
    ids = column(kind, columns({kind: given}, {kind: kind})[kind])
    if len(ids) != size:
        raise InputError(f"there are {len(ids)} {kind}_ids for {size} {kind}s; give one for each")
    if not ids.is_unique().all():
        repeated = ids.filter(ids.is_duplicated())[0]
        raise InputError(f"{kind}_ids has {repeated!r} twice; ids are different")
    return ids


def _row(row: int) -> str:
    return f"the frame, row {row}"


def with_titles(dataset: Dataset, titles: Any) -> Dataset:
    """Give items of a data set titles; see `Dataset.with_titles`."""
    # A series of pandas has these too.
    if hasattr(titles, "columns") or not hasattr(titles, "items"):
        raise InputError(
            f"titles: a {type(titles).__name__}; give a mapping from items to titles, as "
            "dict(zip(items, titles))"
        )
    known = {str(item): " ".join(str(title).split()) for item, title in titles.items()}
    of_items = item_titles.of_items(known, dataset.item_ids)
    if of_items is None:
        like = ", ".join(map(str, dataset.item_ids[:3].tolist()))
        raise InputError(f"titles: none is of an item of the data set, whose ids look like {like}")
    return dataclasses.replace(dataset, item_titles=of_items)

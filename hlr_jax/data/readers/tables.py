"""Tables with one interaction per row, in any of the formats."""

import dataclasses
import os
from collections.abc import Container

import polars as pl

from hlr_jax.data.readers.blocks import existing_file
from hlr_jax.data.readers.delimited import read_delimited, read_numbers
from hlr_jax.data.readers.ndjson import read_ndjson
from hlr_jax.data.readers.parquet import read_parquet
from hlr_jax.errors import InputError

_SEPARATORS = {"csv": ",", "tsv": "\t", "dat": "::"}
_FORMATS = (*_SEPARATORS, "ndjson", "parquet")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where a table keeps each field.

    Each is the name in the header, or a 0-based position (an int or a string of digits)
    where the file has no header. `None` or "" leaves an optional field out.
    """

    user: str | int = "user"
    item: str | int = "item"
    rating: str | int | None = None
    timestamp: str | int | None = None

    def roles(self) -> dict[str, str | int]:
        """The fields to read, by role.

        Raises:
          InputError: user or item is not given, or two roles share a column.
        """
        given = dataclasses.asdict(self)
        roles = {role: column for role, column in given.items() if column not in (None, "")}
        for role in ("user", "item"):
            if role not in roles:
                raise InputError(f"columns: no {role} column given; name it or give its position")
        seen: dict[str, str] = {}
        for role, column in roles.items():
            other = seen.setdefault(str(column), role)
            if other != role:
                raise InputError(
                    f"columns: {other} and {role} are both {column!r}; give each its own column"
                )
        return roles


def read_table(
    path: str | os.PathLike[str],
    columns: Columns,
    format: str = "",  # noqa: A002, the name that the configuration uses
    separator: str | None = None,
) -> pl.DataFrame:
    """Read a table with one interaction per row.

    Ids are integers when every id of the column is one as Python would write it (`7`, not
    `07` or `+7`); a column of words stays text. Integers among words are words too as long
    as words are at least half of the column; a few words in a column of integers are taken
    for mistakes.

    Args:
      path: the file; text formats may be compressed (`.gz`).
      columns: which column holds what. NDJSON and Parquet have names only.
      format: csv, tsv, dat (`::` between fields), ndjson or parquet; "" goes by the extension.
        Only csv has quoted fields.
      separator: between fields, instead of the format's own; may be several characters.

    Returns:
      Columns `user`, `item` (Int64 or String), and where asked for `rating` (Float64) and
      `timestamp` (Int64), in file order.

    Raises:
      InputError: the file or one of its lines cannot be used.
    """
    name = existing_file(path)
    roles = columns.roles()
    kind = _format_of(name, format)
    if kind in _SEPARATORS:
        separator = _SEPARATORS[kind] if separator is None else separator
        if not separator or set(separator) & set('\n\r"\0'):
            raise InputError(
                f"{name}: separator {separator!r} cannot be used; give for instance ','"
            )
        return read_delimited(name, roles, separator, quoted=kind == "csv")
    if separator is not None:
        raise InputError(f"{name}: format {kind} has no separator; leave the separator out")
    named = {role: str(column) for role, column in roles.items()}
    return read_parquet(name, named) if kind == "parquet" else read_ndjson(name, named)


def read_item_numbers(path: str | os.PathLike[str], ids: Container[str] = ()) -> pl.DataFrame:
    """Read a .csv or .tsv file, maybe compressed (`.gz`), of numbers that describe items.

    The first line is a header. The others have an item's id and then a number in each column.

    Args:
      ids: of items; a first line of one of these and numbers is no header.

    Returns:
      Columns `item` (Int64 or String) and, for each of the others, one of Float64.

    Raises:
      InputError: the file or one of its lines cannot be used.
    """
    name = existing_file(path)
    kind = _format_of(name, "")
    if kind not in ("csv", "tsv"):
        raise InputError(f"{name}: features are read from .csv and .tsv files; give one of these")
    return read_numbers(name, _SEPARATORS[kind], kind == "csv", ids)


def _format_of(path: str, given: str) -> str:
    if given:
        if given not in _FORMATS:
            raise InputError(f"{path}: format {given!r} is not a table; use {', '.join(_FORMATS)}")
        return given
    extension = os.path.splitext(path.removesuffix(".gz"))[1].removeprefix(".").lower()
    if extension == "jsonl":
        return "ndjson"
    if extension not in _FORMATS:
        raise InputError(
            f"{path}: the extension {extension!r} tells no format; use {', '.join(_FORMATS)}"
        )
    return extension

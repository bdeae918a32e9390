"""Read tables with one interaction per row, in several formats."""

import dataclasses
import os
from collections.abc import Container

import polars as pl

from hlr_jax.data.readers.blocks import existing_file, first_lines
from hlr_jax.data.readers.delimited import read_delimited, read_numbers
from hlr_jax.data.readers.dialects import (
    SEPARATORS,
    Dialect,
    Layout,
    format_of_lines,
    layout_of,
)
from hlr_jax.data.readers.ndjson import read_ndjson
from hlr_jax.data.readers.parquet import read_parquet
from hlr_jax.errors import InputError

_FORMATS = (*SEPARATORS, "ndjson", "parquet")
# Ends of names that are not those of a format.
_EXTENSIONS = {"jsonl": "ndjson", "inter": "tsv"}


_AS_USUAL = Dialect()


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a table that hold the user, the item, the rating and the timestamp.

    A column is given by its name in the header or, in a file without a header, by its 0-based
    position (an int or a string of digits). None or "" means that an optional column is not read.
    """

    user: str | int = "user"
    item: str | int = "item"
    rating: str | int | None = None
    timestamp: str | int | None = None

    def roles(self) -> dict[str, str | int]:
        """Return the columns to read by role: `user`, `item`, `rating`, `timestamp`.

        Raises:
          InputError: user or item is not given, or two roles have the same column.
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
    dialect: Dialect = _AS_USUAL,
) -> pl.DataFrame:
    """Read a table with one interaction per row.

    Ids are labels: any text but an empty one is an id, and stays as it is. A column becomes
    integers only if every id is an integer as Python would write it (`7`, but not `07`, `+7` or
    `-7`), or such a one with `.0`, as pandas writes it beside missing values.

    Args:
      path: the file; text formats may be compressed (`.gz`).
      columns: which column holds what. Columns of NDJSON and Parquet have names only.
      format: csv, tsv, dat (`::` between fields), ndjson or parquet; "" takes the format from the
        file's extension, or where that tells none from its first lines.
      dialect: how text is written. CSV may be separated by `;`, tabs or `|` as well, and be quoted;
        so may TSV where all texts of its first lines are.

    Returns:
      Columns `user`, `item` (Int64 or String) and, if they are given, `rating` (Float64) and
      `timestamp` (Int64, or Float64 where one has a fraction), in the order of the file.

    Raises:
      InputError: the file or one of its lines cannot be used.
    """
    name = existing_file(path)
    roles = columns.roles()
    lines = first_lines(name, dialect.encoding)
    kind = _format_of(name, format) or format_of_lines(lines, roles)
    if not kind:
        extension = os.path.splitext(name.removesuffix(".gz"))[1]
        raise InputError(
            f"{name}: neither the extension {extension!r} nor its first lines tell a format with "
            f"these columns; use {', '.join(_FORMATS)}"
        )
    if kind in SEPARATORS:
        if dialect.separator and set(dialect.separator) & set('\n\r"\0'):
            raise InputError(
                f"{name}: separator {dialect.separator!r} cannot be used; give for instance ','"
            )
        return read_delimited(name, roles, layout_of(lines, kind, roles, dialect), dialect)
    if dialect.separator:
        raise InputError(f"{name}: format {kind} has no separator; leave the separator out")
    named = {role: str(column) for role, column in roles.items()}
    read = read_parquet if kind == "parquet" else read_ndjson
    return read(name, named, dialect)


def read_item_numbers(path: str | os.PathLike[str], ids: Container[str] = ()) -> pl.DataFrame:
    """Read a table of numbers that describe items.

    Args:
      path: a .csv or .tsv file, which may be compressed (`.gz`). The first line is a header; each
        of the others has an item's id and then numbers.
      ids: of items. If the first line has one of them and then numbers, the header is missing.

    Returns:
      Columns `item` (Int64 or String) and, for each other column of the file, one of Float64.

    Raises:
      InputError: the file or one of its lines cannot be used.
    """
    name = existing_file(path)
    kind = _format_of(name, "")
    if kind not in ("csv", "tsv"):
        raise InputError(f"{name}: features are read from .csv and .tsv files; give one of these")
    return read_numbers(name, Layout(SEPARATORS[kind], kind == "csv"), ids)


def _format_of(path: str, given: str) -> str:
    """Return the format: the one given, or that of the file's extension; "" if it tells none."""
    if given:
        if given not in _FORMATS:
            raise InputError(f"{path}: format {given!r} is not a table; use {', '.join(_FORMATS)}")
        return given
    extension = os.path.splitext(path.removesuffix(".gz"))[1].removeprefix(".").lower()
    extension = _EXTENSIONS.get(extension, extension)
    return extension if extension in _FORMATS else ""

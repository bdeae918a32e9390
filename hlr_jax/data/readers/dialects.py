"""How a text file of a table is written: what the user says, and what its first lines tell."""

import csv
import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

from hlr_jax.errors import InputError

SEPARATORS = {"csv": ",", "tsv": "\t", "dat": "::"}
# Between the fields of what is called CSV, the likeliest first.
_OF_CSV = (",", ";", "\t", "|")
# Between the fields of a file whose name says nothing.
_OF_ANY = ("\t", "::", ",", ";", "|")
# Lines that must have the same number of fields for a separator to be detected.
_TELLING_LINES = 20
# The header of RecBole's atomic files: a type behind each name.
_TYPED = re.compile(r".+:(token|token_seq|float|float_seq)")


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What a user says of a table.

    Attributes:
      separator: between fields; "" for that of the format, or for CSV the one that is detected.
      encoding: of text.
      decimal: `.` or `,`: what stands before the fraction of a number.
      drops_bad_rows: rows that cannot be used are left out and counted.
    """

    separator: str = ""
    encoding: str = "utf-8"
    decimal: str = "."
    drops_bad_rows: bool = False


class Layout(NamedTuple):
    """How lines are split: at a separator, outside of quotes if fields may be `quoted`."""

    separator: str
    quoted: bool


def layout_of(
    lines: list[str], kind: str, roles: Mapping[str, str | int], dialect: Dialect
) -> Layout:
    """Tell how a table is written.

    Args:
      lines: the first ones of the file.
      kind: its format: csv, tsv or dat.
      roles: the columns to be read.
      dialect: what is known.
    """
    separator = dialect.separator or SEPARATORS[kind]
    if kind == "csv" and not dialect.separator:
        candidates = _OF_CSV if dialect.decimal == "." else (*_OF_CSV[1:], _OF_CSV[0])
        separator = _detected(lines, candidates, roles) or separator
    # Quoting is defined for separators of one byte only. TSV is quoted by some programs, and has
    # quotes as a part of its texts from others.
    is_byte = len(separator.encode()) == 1
    quoted = kind == "csv" or (kind == "tsv" and _has_quoted_fields(lines, separator))
    return Layout(separator, is_byte and quoted)


def format_of_lines(lines: list[str], roles: Mapping[str, str | int]) -> str:
    """Tell the format of a file by its first lines; "" if they do not tell."""
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("PAR1"):
        return "parquet"
    if first.startswith("{"):
        return "ndjson"
    separator = _detected(lines, _OF_ANY, roles)
    known = {"\t": "tsv", "::": "dat"}
    return known.get(separator, "csv") if separator else ""


def names_of(header: list[str]) -> list[str]:
    """The names of columns as people use them, without the types behind those of RecBole."""
    if not is_typed(header):
        return header
    return [name.strip().rpartition(":")[0] for name in header]


def is_typed(header: list[str]) -> bool:
    """Whether every name has a type behind it."""
    return all(_TYPED.fullmatch(name.strip()) for name in header)


def has_names(first: list[str], roles: Mapping[str, str | int]) -> bool:
    """Whether columns that are given by digits are names of a header.

    That is so below the unnamed column that pandas writes for its index; elsewhere digits in the
    first line are data.
    """
    names = [str(column) for column in roles.values()]
    is_text = all(isinstance(column, str) for column in roles.values())
    return is_text and first[0] == "" and all(first.count(name) == 1 for name in names)


def as_position(column: str | int) -> int | None:
    """Return the position that a column is given by; None if it is given by its name."""
    if isinstance(column, int):
        if column < 0:
            raise InputError(f"columns: position {column} is negative; positions count from 0")
        return column
    return int(column) if re.fullmatch(r"0|[1-9][0-9]{0,8}", column) else None


def _detected(lines: list[str], candidates: tuple[str, ...], roles: Mapping[str, str | int]) -> str:
    """Find the separator that gives the columns wanted; "" if none does."""
    filled = [line for line in lines if line.strip()][:_TELLING_LINES]
    if not filled:
        return ""
    possible = []
    for separator in candidates:
        rows = [_split(line, separator) for line in filled]
        widths = {len(row) for row in rows}
        names = [name.strip() for name in names_of(rows[0])]
        places = [as_position(column) for column in roles.values()]
        if None in places:
            # Rows with a wrong number of fields are for the reader to name.
            if len(rows[0]) > 1 and (set(roles.values()) <= set(names) or is_typed(rows[0])):
                return separator
        elif len(widths) == 1 and min(widths) > max(1, *(place or 0 for place in places)):
            wanted = {row[place or 0] for row in rows for place in places}
            # An id with another separator in it may be one, but is rather split by that one.
            if not any(other in field for other in candidates for field in wanted):
                return separator
            possible.append(separator)
    return possible[0] if possible else ""


def _split(line: str, separator: str) -> list[str]:
    if len(separator) > 1 or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=separator != "\t"), [])
    except csv.Error:
        return line.split(separator)


def _has_quoted_fields(lines: list[str], separator: str) -> bool:
    """Whether all fields of the first or of the second line, but for numbers, are in quotes."""
    for line in lines[:2]:
        fields = [field for field in line.split(separator) if not _is_bare(field)]
        if fields and all(len(x) > 1 and x[0] == x[-1] == '"' for x in fields):
            return True
    return False


def _is_bare(field: str) -> bool:
    return re.fullmatch(r"[-+.0-9eE]*", field) is not None

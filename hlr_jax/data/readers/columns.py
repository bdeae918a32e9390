"""Collect columns of ids and numbers block by block, and check their values."""

from collections.abc import Callable, Mapping

import polars as pl

from hlr_jax.data import times
from hlr_jax.data.readers.blocks import shown
from hlr_jax.errors import InputError

MAX_ID = 2**63 - 1

# Names a row of a block for an error message: "ratings.csv line 7".
Place = Callable[[int], str]


class Table:
    """Columns of a table, of which rows are added block by block.

    A column is known by its role: `user` or `item` for ids, `timestamp` for whole numbers or dates,
    and any other role for finite numbers.
    """

    def __init__(
        self, path: str, columns: Mapping[str, str | int], has_header: bool = True
    ) -> None:
        self._path = path
        self._columns: dict[str, _Ids | _Numbers | _Times] = {}
        for role, column in columns.items():
            label = role if role == column else f"{role} (column {column})"
            if role in ("user", "item"):
                self._columns[role] = _Ids(label, has_header)
            elif role == "timestamp":
                self._columns[role] = _Times(label)
            else:
                self._columns[role] = _Numbers(label)

    def add(self, frame: pl.DataFrame, place: Place) -> None:
        """Append rows.

        Args:
          frame: has a column of text, integers or floats for each role.
          place: names a row of the frame.

        Raises:
          InputError: a value cannot be used; the message names the first one and its place.
        """
        for role, column in self._columns.items():
            column.add(frame.get_column(role), place)

    def finish(self) -> pl.DataFrame:
        """Return all rows in the order in which they were added.

        Raises:
          InputError: there are none, or an id does not fit the other ids of its column.
        """
        first = next(iter(self._columns.values()))
        if not any(len(part) for part in first.parts):
            raise InputError(
                f"{self._path}: has no interactions; give a file with at least one line of data"
            )
        return pl.DataFrame({role: column.finish() for role, column in self._columns.items()})


class _Numbers:
    """A column of finite numbers, as `Float64`."""

    def __init__(self, label: str) -> None:
        self.parts: list[pl.Series] = []
        self._label = label

    def add(self, values: pl.Series, place: Place) -> None:
        numbers = values.cast(pl.Float64, strict=False)
        good = numbers.is_finite().fill_null(False)
        if not good.all():
            row = _first(~good)
            raise InputError(
                f"{place(row)}: {self._label} {shown(values[row])} is not a finite number; correct "
                "the line, or do without this column"
            )
        self.parts.append(numbers)

    def finish(self) -> pl.Series:
        return pl.concat(self.parts, rechunk=False)


class _Times:
    """A column of times: whole numbers as they are, or dates as microseconds, but not both."""

    def __init__(self, label: str) -> None:
        self.parts: list[pl.Series] = []
        self._label = label
        self._are_dates: bool | None = None

    def add(self, values: pl.Series, place: Place) -> None:
        if self._are_dates is None and len(values):
            first = values[:1]
            self._are_dates = first.dtype.is_temporal() or times.numbers(first).has_nulls()
            self._are_dates &= not times.dates(first).has_nulls()
        found = times.dates(values) if self._are_dates else times.numbers(values)
        if found.has_nulls():
            row = _first(found.is_null())
            kind = "a date of ISO 8601, as those before"
            if not self._are_dates:
                kind = "a whole number of seconds or a date of ISO 8601 (2025-01-31)"
            raise InputError(
                f"{place(row)}: {self._label} {shown(values[row])} is not {kind}; correct the "
                "line, drop it, or do without this column"
            )
        self.parts.append(found)

    def finish(self) -> pl.Series:
        return pl.concat(self.parts, rechunk=False)


class _Ids:
    """A column of ids: `Int64` if every id is an integer, otherwise `String`.

    Only after the last block is it known whether the ids are words or integers. If they are words,
    any integer is allowed as a word. If they are integers, a word is an error, and so is an integer
    that is negative or too large. So the message for the first of each is kept until then.
    """

    def __init__(self, label: str, has_header: bool) -> None:
        self.parts: list[pl.Series] = []
        self._label = label
        self._has_header = has_header
        self._words = 0
        self._wrong_word = ""
        self._wrong_integer = ""

    def add(self, values: pl.Series, place: Place) -> None:
        integers = values.cast(pl.Int64, strict=False)
        if values.dtype.is_integer():
            exact = integers.is_not_null()
        else:
            exact = (integers.cast(pl.String) == values).fill_null(False)
        if exact.all():
            self._keep_message_of_integer(integers < 0, integers, place)
            self.parts.append(integers)
            return
        text = values.cast(pl.String)
        empty = text.is_null() | (text.str.strip_chars() == "")
        if empty.any():
            raise InputError(
                f"{place(_first(empty))}: {self._label} is empty; give every line an id"
            )
        large = ~exact & text.str.contains(r"^-?[1-9][0-9]{18,}$")
        self._keep_message_of_integer(large | (exact & (integers < 0)), text, place)
        words = ~exact & ~large
        if words.any() and not self._words:
            self._keep_message_of_word(_first(words), text, place)
        self._words += int(words.sum())
        self.parts.append(text)

    def _keep_message_of_word(self, row: int, text: pl.Series, place: Place) -> None:
        self._wrong_word = (
            f"{place(row)}: {self._label} {shown(text[row])} is not an integer as most ids of the "
            "column are; correct the line, or make all of them words"
        )
        if row == 0 and not self.parts and not self._has_header:
            self._wrong_word += "; if this is a header, name the columns instead of their positions"

    def _keep_message_of_integer(self, wrong: pl.Series, values: pl.Series, place: Place) -> None:
        if self._wrong_integer or not wrong.any():
            return
        row = _first(wrong)
        fault = f"is outside 0..{MAX_ID}; use smaller integers, or ids with a letter"
        if str(values[row]).startswith("-"):
            fault = "is negative; ids count from 0"
        self._wrong_integer = f"{place(row)}: {self._label} {values[row]} {fault}"

    def finish(self) -> pl.Series:
        parts = self.parts
        if 2 * self._words >= sum(map(len, parts)):
            parts = [part.cast(pl.String) for part in parts]
        elif fault := self._wrong_word or self._wrong_integer:
            raise InputError(fault)
        return pl.concat(parts, rechunk=False)


def _first(mask: pl.Series) -> int:
    """Return the position of the first true value."""
    return int(mask.arg_max() or 0)

"""Collect columns of ids and numbers block by block, and check their values."""

import logging
from collections.abc import Callable, Mapping

import polars as pl

from hlr_jax.data import times
from hlr_jax.data.readers.blocks import shown
from hlr_jax.data.readers.dialects import Dialect
from hlr_jax.errors import InputError

_log = logging.getLogger(__name__)

MAX_ID = 2**63 - 1

# Whole numbers as pandas writes them beside missing values; up to 2^53 they are exact.
_WHOLE_FLOAT = r"^(0|[1-9][0-9]{0,14})\.0$"
# Rows of the first block that tell whether times are dates.
_TELLING_ROWS = 100

# Names a row of a block for an error message: "ratings.csv line 7".
Place = Callable[[int], str]


class Table:
    """Columns of a table, of which rows are added block by block.

    A column is known by its role: `user` or `item` for ids, `timestamp` for numbers or dates, and
    any other role for finite numbers.

    Attributes:
      blank_lines: how many the reader has skipped.
    """

    def __init__(
        self,
        path: str,
        columns: Mapping[str, str | int],
        has_header: bool = True,
        dialect: Dialect | None = None,
    ) -> None:
        self.blank_lines = 0
        self._path = path
        self._has_header = has_header
        # Of what is in memory already, rows are dropped by whoever has it.
        self._remedy = "; config.data.on_bad_row=drop leaves such rows out" if dialect else ""
        self._drops = dialect is not None and dialect.drops_bad_rows
        self._dropped = 0
        self._first_dropped = ""
        self._columns: dict[str, _Ids | _Numbers | _Times] = {}
        decimal = dialect.decimal if dialect else "."
        for role, column in columns.items():
            label = role if role == column else f"{role} (column {column})"
            if role in ("user", "item"):
                self._columns[role] = _Ids(label)
            elif role == "timestamp":
                self._columns[role] = _Times(label, decimal)
            else:
                self._columns[role] = _Numbers(label, decimal)

    def add(self, frame: pl.DataFrame, place: Place) -> None:
        """Append rows.

        Args:
          frame: has a column of text, integers or floats for each role.
          place: names a row of the frame.

        Raises:
          InputError: a value cannot be used and such rows are not dropped; the message names the
            first one and its place, and how many more there are.
        """
        if not frame.height:
            return
        parts, bad = {}, pl.repeat(False, frame.height, eager=True)
        first, fault = frame.height, ""
        for role, column in self._columns.items():
            values = frame.get_column(role)
            parts[role], wrong = column.convert(values)
            if wrong is not None and wrong.any():
                bad |= wrong
                if (row := _first(wrong)) < first:
                    first, fault = row, column.fault(values[row])
        if fault:
            self.refuse(f"{place(first)}: {fault}", int(bad.sum()))
        if bad.any():
            self._dropped += int(bad.sum())
            parts = {role: part.filter(~bad) for role, part in parts.items()}
        for role, part in parts.items():
            self._columns[role].append(part)

    def refuse(self, fault: str, rows: int) -> None:
        """Raise InputError for `rows` bad rows, unless they are dropped; `fault` is of the first.

        Rows that are no row of a frame are counted by `drop` besides.
        """
        if not self._drops:
            more = f" (and {rows - 1:,} more rows cannot be used)" if rows > 1 else ""
            raise InputError(f"{fault}{more}{self._remedy}")
        self._first_dropped = self._first_dropped or fault

    def drop(self, rows: int) -> None:
        """Count rows that have been dropped before they could be added."""
        self._dropped += rows

    def finish(self) -> pl.DataFrame:
        """Return all rows in the order in which they were added, and log what was left out.

        Raises:
          InputError: there are none, or the first is a header.
        """
        if self._dropped:
            _log.warning(
                "%s: %s rows that cannot be used are dropped; the first: %s",
                self._path,
                f"{self._dropped:,}",
                self._first_dropped,
            )
        if self.blank_lines:
            _log.warning("%s: %s blank lines are skipped", self._path, f"{self.blank_lines:,}")
        first = next(iter(self._columns.values()))
        if not any(len(part) for part in first.parts):
            raise InputError(
                f"{self._path}: has no interactions; give a file with at least one line of data"
            )
        if not self._has_header:
            self._refuse_header()
        return pl.DataFrame({role: column.finish() for role, column in self._columns.items()})

    def _refuse_header(self) -> None:
        """Refuse a first row of words above integers; warn where one column alone looks so."""
        ids = [column for column in self._columns.values() if isinstance(column, _Ids)]
        headings = [column.heading for column in ids if column.heading]
        if not headings:
            return
        words = " and ".join(map(shown, headings))
        if len(headings) == len(ids):
            raise InputError(
                f"{self._path} line 1: is a header ({words} above integers); name the columns "
                "instead of their positions"
            )
        _log.warning(
            "%s line 1: %s stands above integers; if this is a header, name the columns instead "
            "of their positions",
            self._path,
            words,
        )


class _Numbers:
    """A column of finite numbers, as `Float64`."""

    def __init__(self, label: str, decimal: str) -> None:
        self.parts: list[pl.Series] = []
        self._label, self._decimal = label, decimal

    def convert(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        numbers = _with_points(values, self._decimal).cast(pl.Float64, strict=False)
        good = numbers.is_finite().fill_null(False)
        if self._decimal != "." and values.dtype == pl.String:
            good &= ~values.str.contains(".", literal=True).fill_null(False)  # Of thousands?
        return numbers, None if good.all() else ~good

    def fault(self, value: object) -> str:
        hint = ""
        if isinstance(value, str) and "," in value and self._decimal == ".":
            hint = "set config.data.decimal=',', "
        elif isinstance(value, str) and "." in value and self._decimal == ",":
            hint = "config.data.decimal=',' takes no points, "
        return (
            f"{self._label} {shown(value)} is not a finite number; {hint}correct the line, or do "
            "without this column"
        )

    def append(self, part: pl.Series) -> None:
        self.parts.append(part)

    def finish(self) -> pl.Series:
        return pl.concat(self.parts, rechunk=False)


class _Times:
    """A column of times: numbers as they are, or dates as microseconds, but not both.

    Whole numbers are `Int64`; `Float64` if one has a fraction.
    """

    def __init__(self, label: str, decimal: str) -> None:
        self.parts: list[pl.Series] = []
        self._label, self._decimal = label, decimal
        self._are_dates: bool | None = None

    def convert(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        values = _with_points(values, self._decimal)
        if self._are_dates is None:
            head = values.head(_TELLING_ROWS)
            is_date = times.dates(head).is_not_null()
            if values.dtype.is_temporal() or times.numbers(head).is_not_null().any():
                self._are_dates = values.dtype.is_temporal()
            elif is_date.any():
                self._are_dates = True
        found = times.dates(values) if self._are_dates else times.numbers(values)
        return found, found.is_null() if found.has_nulls() else None

    def fault(self, value: object) -> str:
        kind = "a date of ISO 8601, as those before"
        if not self._are_dates:
            kind = "a number of seconds or a date of ISO 8601 (2025-01-31)"
        return (
            f"{self._label} {shown(value)} is not {kind}; correct the line, or do without this "
            "column"
        )

    def append(self, part: pl.Series) -> None:
        self.parts.append(part)

    def finish(self) -> pl.Series:
        parts = self.parts
        if any(part.dtype == pl.Float64 for part in parts):
            parts = [part.cast(pl.Float64) for part in parts]
        return pl.concat(parts, rechunk=False)


class _Ids:
    """A column of ids: `Int64` if every id is a plain integer, otherwise `String`.

    A plain integer is one as Python writes it, from 0 to `MAX_ID`; `7.0` beside others counts as 7,
    because that is how pandas writes integers where some are missing. Any other text is an id as it
    stands. Which of the two a column is, is known only after the last block.
    """

    def __init__(self, label: str) -> None:
        self.parts: list[pl.Series] = []
        self._label = label
        # How many ids are no plain integers; counted up to the block that has the second.
        self._words = 0
        self._first_word = ""

    def convert(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        integers, plain = _plain(values)
        if plain.all():
            return integers, None
        text = values.cast(pl.String)
        empty = text.is_null() | (text.str.strip_chars() == "")
        return text, empty if empty.any() else None

    def fault(self, _: object) -> str:
        return f"{self._label} is empty; give every line an id"

    def append(self, part: pl.Series) -> None:
        if part.dtype == pl.String and self._words < 2 and len(part):
            word = ~(_plain(part)[1] | part.str.contains(_WHOLE_FLOAT))
            if not self.parts and word[0]:
                self._first_word = part[0]
            self._words += int(word.sum())
        self.parts.append(part)

    @property
    def heading(self) -> str:
        """The first id, if it is the only one that is no number: probably the column's name."""
        only = self._words == 1 and self._first_word and sum(map(len, self.parts)) > 1
        return self._first_word if only and not self._first_word[0].isdigit() else ""

    def finish(self) -> pl.Series:
        if self._words:
            return pl.concat([part.cast(pl.String) for part in self.parts], rechunk=False)
        return pl.concat([integers_of(part) for part in self.parts], rechunk=False)


def integers_of(ids: pl.Series) -> pl.Series:
    """Convert ids, all of them plain integers or such with `.0`, to Int64."""
    return ids.str.strip_suffix(".0").cast(pl.Int64) if ids.dtype == pl.String else ids


def as_words(ids: pl.Series) -> pl.Series:
    """Convert ids to text, beside other ones of them that are integers; `7.0` is 7 there."""
    text = ids.cast(pl.String)
    return text.str.replace(_WHOLE_FLOAT, "${1}")


def _plain(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Convert to Int64, and tell which values are plain integers."""
    integers = values.cast(pl.Int64, strict=False)
    if values.dtype.is_integer():
        return integers, (integers >= 0).fill_null(False)
    same = (integers.cast(pl.String) == values) & (integers >= 0)
    return integers, same.fill_null(False)


def _with_points(values: pl.Series, decimal: str) -> pl.Series:
    if decimal == "." or values.dtype != pl.String:
        return values
    return values.str.replace(decimal, ".", literal=True)


def _first(mask: pl.Series) -> int:
    """Return the position of the first true value."""
    return int(mask.arg_max() or 0)

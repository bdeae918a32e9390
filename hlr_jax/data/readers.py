"""Interaction files in, polars frames out; bad input raises one line that names the place.

Text files are read in blocks of whole lines. Each block is checked (UTF-8, number of
fields, ids, numbers) before the next is read, so a fault is named by its line number, no
line is ever dropped, and memory holds the columns plus one block whatever the file's size.
"""

import csv
import dataclasses
import functools
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import polars as pl

from hlr_jax.errors import InputError

# Bytes read at a time: large enough for polars' threads, small beside the columns.
BLOCK_BYTES = 32 * 2**20

_SEPARATORS = {"csv": ",", "tsv": "\t", "dat": "::"}
_EXTENSIONS = {**{name: name for name in _SEPARATORS}, "ndjson": "ndjson", "jsonl": "ndjson"}
_EXTENSIONS["parquet"] = "parquet"
FORMATS = (*_SEPARATORS, "ndjson", "parquet")

_NEWLINE, _QUOTE, _RETURN, _ZERO = 10, 34, 13, 48
_MAX_ID = 2**63 - 1

# Names a row for an error message: "ratings.csv line 7".
Place = Callable[[int], str]


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


class _Block(NamedTuple):
    """Whole lines of a file, without the last newline.

    Attributes:
      path: of the file, for messages.
      text: valid UTF-8 without NUL.
      line: 1-based number of the first line.
    """

    path: str
    text: bytes
    line: int


# ---------------------------------------------------------------------------------------------
# Tables: one interaction per row.


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
    name = _checked_file(path)
    roles = columns.roles()
    kind = _kind_of(name, format)
    if kind not in _SEPARATORS:
        if separator is not None:
            raise InputError(f"{name}: format {kind} has no separator; leave the separator out")
        named = {role: str(column) for role, column in roles.items()}
        return _read_parquet(name, named) if kind == "parquet" else _read_ndjson(name, named)
    separator = _SEPARATORS[kind] if separator is None else separator
    if not separator or set(separator) & set('\n\r"\0'):
        raise InputError(f"{name}: separator {separator!r} cannot be used; give for instance ','")
    return _read_delimited(name, roles, separator.encode(), quoted=kind == "csv")


def _checked_file(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    if os.path.isdir(name):
        raise InputError(f"{name}: is a folder; give the path of a file")
    if not os.path.exists(name):
        raise InputError(f"{name}: no such file; check the path")
    return name


def _kind_of(path: str, kind: str) -> str:
    if not kind:
        extension = os.path.splitext(path.removesuffix(".gz"))[1].removeprefix(".").lower()
        kind = _EXTENSIONS.get(extension, "")
        if not kind:
            raise InputError(
                f"{path}: the extension {extension!r} tells no format; use {', '.join(FORMATS)}"
            )
    if kind not in FORMATS:
        raise InputError(f"{path}: format {kind!r} is not a table; use {', '.join(FORMATS)}")
    return kind


def _read_delimited(
    path: str, roles: dict[str, str | int], separator: bytes, quoted: bool
) -> pl.DataFrame:
    positions = {role: _position(column) for role, column in roles.items()}
    has_header = all(position is None for position in positions.values())
    if not has_header and None in positions.values():
        raise InputError(
            f"{path}: columns {list(roles.values())} mix names and positions; use names for a "
            "file with a header, positions for one without"
        )
    collected = {role: _collector(role, column) for role, column in roles.items()}
    # Quoting is defined for separators of one byte only.
    quoted = quoted and len(separator) == 1
    width = 0
    for block in _blocks(path, quoted):
        if not width:
            fields, rest = _first_record(block, separator, quoted)
            width = len(fields)
            if has_header:
                found = _named_positions(block, roles, fields)
                block = rest
            else:
                found = _checked_positions(block, roles, positions, width)
            _check_width(block, width, separator)
            if has_header and not block.text:
                continue
        text, byte = _single_byte(block, separator)
        block = block._replace(text=text)
        place = _check_fields(block, byte, width, quoted)
        frame = _parsed_csv(block, found, width, byte, quoted, place)
        for role, collector in collected.items():
            collector.add(frame.get_column(role), place)
    return _table(path, collected, has_header)


def _position(column: str | int) -> int | None:
    if isinstance(column, int):
        if column < 0:
            raise InputError(f"columns: position {column} is negative; positions count from 0")
        return column
    return int(column) if column.isascii() and column.isdecimal() else None


def _first_record(block: _Block, separator: bytes, quoted: bool) -> tuple[list[str], _Block]:
    """The fields of the first record, and the block after it."""
    text = block.text
    end = text.find(b"\n")
    if quoted and end >= 0 and text.count(b'"', 0, end) % 2:
        ends = _outside_quotes(text, _NEWLINE)
        end = int(ends[0]) if ends.size else -1
    record = text if end < 0 else text[:end]
    rest = b"" if end < 0 else text[end + 1 :]
    line = record.removesuffix(b"\r").decode()
    if quoted:
        fields = next(csv.reader([line], delimiter=separator.decode()), [])
    else:
        fields = line.split(separator.decode())
    return fields, block._replace(text=rest, line=block.line + record.count(b"\n") + 1)


def _check_width(block: _Block, width: int, separator: bytes) -> None:
    if width < 2:
        raise InputError(
            f"{block.path} line 1: only one column when split at {separator.decode()!r}; "
            "give the right format or separator"
        )


def _named_positions(
    block: _Block, roles: dict[str, str | int], header: list[str]
) -> dict[str, int]:
    found = {}
    for role, column in roles.items():
        if header.count(str(column)) != 1:
            fault = "is in the header twice" if column in header else "is not in the header"
            listed = ", ".join(_shown(name) for name in header[:20])
            # A header of one column is a wrong separator rather than a wrong name.
            hint = "" if len(header) > 1 else "; one column only: give the right separator"
            raise InputError(
                f"{block.path} line 1: {role} column {column!r} {fault}, which has {listed}{hint}; "
                "name one of these, or give 0-based positions if the file has no header"
            )
        found[role] = header.index(str(column))
    return found


def _checked_positions(
    block: _Block, roles: dict[str, str | int], positions: dict[str, int | None], width: int
) -> dict[str, int]:
    found = {}
    for role, position in positions.items():
        assert position is not None
        if position >= width > 1:
            raise InputError(
                f"{block.path} line 1: {role} column {roles[role]} is beyond the {width} columns; "
                f"positions are 0 to {width - 1}"
            )
        found[role] = position
    return found


def _single_byte(block: _Block, separator: bytes) -> tuple[bytes, int]:
    """The block's text with a separator of one byte, and that byte: all that polars knows."""
    if len(separator) == 1:
        return block.text, separator[0]
    for byte in (31, 30, 29, 28, *range(1, 9)):
        if bytes([byte]) not in block.text:
            return block.text.replace(separator, bytes([byte])), byte
    raise InputError(f"{block.path} line {block.line}: holds control characters; remove them")


def _check_fields(block: _Block, separator: int, width: int, quoted: bool) -> Place:
    """Check that every record of the block has `width` fields; returns what names a record."""
    text = np.frombuffer(block.text, np.uint8)
    if quoted and b'"' in block.text:
        _check_quotes(block, separator)
        ends = _outside_quotes(block.text, _NEWLINE)
        separators = _outside_quotes(block.text, separator)
    else:
        ends = np.flatnonzero(text == _NEWLINE)
        separators = np.flatnonzero(text == separator)
    place = functools.partial(_record_place, block, ends)
    expected = width - 1
    if separators.size == expected * (ends.size + 1):
        # The common case, without a count per record: the first and the last separator of
        # every record lie between the record's ends.
        table = separators.reshape(-1, expected)
        if (table[1:, 0] > ends).all() and (table[:-1, -1] < ends).all():
            return place
    counts = np.diff(np.searchsorted(separators, ends), prepend=0, append=0)
    counts[-1] = separators.size - counts[:-1].sum()
    row = int(np.flatnonzero(counts != expected)[0])
    start, end = _record_bounds(block, ends, row)
    if not block.text[start:end].strip():
        raise InputError(f"{place(row)}: is blank; remove the line")
    raise InputError(
        f"{place(row)}: has {counts[row] + 1} fields where the first line has {width}; "
        "correct the line, or the separator"
    )


def _check_quotes(block: _Block, separator: int) -> None:
    """Check that quotes open and close at the border of a field, and are doubled inside one."""
    text = np.frombuffer(block.text, np.uint8)
    quotes = np.flatnonzero(text == _QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    before = text[opening - 1]
    opens = (opening == 0) | np.isin(before, (separator, _NEWLINE, _QUOTE))
    after = text[np.minimum(closing + 1, text.size - 1)]
    closes = (closing + 1 == text.size) | np.isin(after, (separator, _NEWLINE, _RETURN, _QUOTE))
    stray = np.concatenate([opening[~opens], closing[~closes]])
    if quotes.size % 2 and not stray.size:
        stray = quotes[-1:]
    if stray.size:
        line = block.line + block.text.count(b"\n", 0, int(stray.min()))
        raise InputError(
            f"{block.path} line {line}: a stray or unclosed quote; quote whole fields and "
            "double the quotes inside them"
        )


def _outside_quotes(text: bytes, byte: int) -> np.ndarray:
    """Ascending positions of a byte that are not inside a quoted field."""
    array = np.frombuffer(text, np.uint8)
    positions = np.flatnonzero(array == byte)
    quotes = np.flatnonzero(array == _QUOTE)
    return positions[np.searchsorted(quotes, positions) % 2 == 0]


def _record_bounds(block: _Block, ends: np.ndarray, row: int) -> tuple[int, int]:
    start = int(ends[row - 1]) + 1 if row else 0
    return start, int(ends[row]) if row < ends.size else len(block.text)


def _record_place(block: _Block, ends: np.ndarray, row: int) -> str:
    start, _ = _record_bounds(block, ends, row)
    line = block.line + block.text.count(b"\n", 0, start)
    return f"{block.path} line {line}"


def _parsed_csv(
    block: _Block,
    positions: dict[str, int],
    width: int,
    separator: int,
    quoted: bool,
    place: Place,
) -> pl.DataFrame:
    """The block's wanted columns as text, named by role."""
    names = {position: role for role, position in positions.items()}
    # With a header of our own the text can never start like a compressed file, which polars
    # would take it for ("x^" is enough).
    header = [names.get(position, f"_{position}") for position in range(width)]
    fault = (
        f"{place(0)}: this line or one of those after it cannot be split into fields; check "
        "quotes and separators"
    )
    try:
        frame = pl.read_csv(
            chr(separator).join(header).encode() + b"\n" + block.text,
            columns=[name for name in header if name in positions],
            separator=chr(separator),
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except (pl.exceptions.PolarsError, OSError):
        raise InputError(fault) from None
    if frame.height != _num_records(block, quoted):
        raise InputError(fault)
    return frame


def _num_records(block: _Block, quoted: bool) -> int:
    if quoted and b'"' in block.text:
        return _outside_quotes(block.text, _NEWLINE).size + 1
    return block.text.count(b"\n") + 1


def _read_ndjson(path: str, names: dict[str, str]) -> pl.DataFrame:
    collected = {role: _collector(role, name) for role, name in names.items()}
    for block in _blocks(path):
        if block.line == 1:
            _check_json_names(block, names)
        place = functools.partial(_line_place, block)
        frame = _parsed_ndjson(block, names)
        for role, name in names.items():
            texts = frame.get_column(name)
            if role in ("user", "item"):
                _check_json_ids(block, texts, name)
            collected[role].add(texts, place)
    return _table(path, collected, has_header=True)


def _check_json_names(block: _Block, names: dict[str, str]) -> None:
    first = _json_object(block, 0, block.text.partition(b"\n")[0])
    for role, name in names.items():
        if name not in first:
            listed = ", ".join(_shown(key) for key in list(first)[:20])
            raise InputError(
                f"{block.path} line 1: {role} field {name!r} is not among {listed}; name one of "
                "these"
            )


def _parsed_ndjson(block: _Block, names: dict[str, str]) -> pl.DataFrame:
    try:
        frame = pl.read_ndjson(block.text, schema=dict.fromkeys(names.values(), pl.String))
        if frame.height == block.text.count(b"\n") + 1:
            return frame
    except (pl.exceptions.PolarsError, OSError):
        pass
    # Python's parser is slow, and says which line.
    for row, line in enumerate(block.text.split(b"\n")):
        _json_object(block, row, line)
    raise InputError(
        f"{block.path} line {block.line}: this line or one of those after it is not valid JSON; "
        "write one object per line"
    )


def _json_object(block: _Block, row: int, line: bytes) -> dict[str, object]:
    place = _line_place(block, row)
    if not line.strip():
        raise InputError(f"{place}: is blank; remove the line")
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        detail = str(error).replace("\n", " ")
        raise InputError(f"{place}: not valid JSON ({detail}); write one object per line") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: not a JSON object; write one object per line")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_json_ids(block: _Block, texts: pl.Series, name: str) -> None:
    """Check that no id is a list, an object or a truth value, which polars turns into text."""
    doubtful = texts.str.starts_with("[") | texts.str.starts_with("{")
    doubtful |= texts.is_in(["true", "false"])
    if not doubtful.any():
        return
    lines = block.text.split(b"\n")
    for row in doubtful.arg_true():
        value = _json_object(block, row, lines[row])[name]
        if not isinstance(value, str):
            raise InputError(
                f"{_line_place(block, row)}: {name} {_shown(value)} is not an id; use a string or "
                "an integer"
            )


def _line_place(block: _Block, row: int) -> str:
    return f"{block.path} line {block.line + row}"


def _read_parquet(path: str, names: dict[str, str]) -> pl.DataFrame:
    try:
        # Opened here, so that a path is never taken for a pattern or an address.
        with open(path, "rb") as file:
            present = pl.read_parquet_schema(file)
        missing = [role for role, name in names.items() if name not in present]
        if missing:
            role = missing[0]
            raise InputError(
                f"{path}: {role} column {names[role]!r} is not among {', '.join(present)}; "
                "name one of these"
            )
        frame = pl.read_parquet(os.path.abspath(path), columns=[*names.values()], glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        detail = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: not a readable Parquet file ({detail}); write it again"
        ) from None
    collected = {role: _collector(role, name) for role, name in names.items()}
    for role, collector in collected.items():
        collector.add(_parquet_text(path, role, frame.get_column(names[role])), _row_place(path))
    return _table(path, collected, has_header=True)


def _parquet_text(path: str, role: str, values: pl.Series) -> pl.Series:
    """A column as the collectors take it: integers and floats as they are, the rest as text."""
    dtype = values.dtype
    if dtype.is_integer() or isinstance(dtype, pl.String):
        return values
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return values.cast(pl.String)
    if dtype.is_float() and role in ("rating", "timestamp"):
        return values
    if isinstance(dtype, pl.Decimal) and role == "rating":
        return values.cast(pl.Float64)
    wanted = {"rating": "numbers", "timestamp": "whole seconds"}.get(role, "integers or strings")
    raise InputError(
        f"{path}: {role} column {values.name!r} holds {dtype} values; convert them to {wanted}"
    )


def _row_place(path: str) -> Place:
    return lambda row: f"{path} row {row + 1}"


# ---------------------------------------------------------------------------------------------
# Columns, collected block by block.


class _Collector:
    """Checks and keeps one column, a block at a time."""

    def __init__(self, role: str, column: str | int) -> None:
        self.label = role if role == column else f"{role} (column {column})"
        self.parts: list[pl.Series] = []

    def add(self, values: pl.Series, place: Place) -> None:
        """Append the values of a block, or raise `InputError` at the first that is wrong."""
        raise NotImplementedError

    def finish(self, has_header: bool) -> pl.Series:
        """All values so far, in file order."""
        return pl.concat(self.parts, rechunk=False)


class _Numbers(_Collector):
    """A column of numbers: finite `Float64`, or whole ones as `Int64`."""

    def __init__(self, role: str, column: str | int) -> None:
        super().__init__(role, column)
        self.whole = role == "timestamp"

    def add(self, values: pl.Series, place: Place) -> None:
        numbers = _whole_numbers(values) if self.whole else values.cast(pl.Float64, strict=False)
        good = numbers.is_not_null() if self.whole else numbers.is_finite().fill_null(False)
        if not good.all():
            row = int((~good).arg_max() or 0)
            kind = "whole number of seconds" if self.whole else "finite number"
            raise InputError(
                f"{place(row)}: {self.label} {_shown(values[row])} is not a {kind}; correct the "
                "line, or leave this column out"
            )
        self.parts.append(numbers)


def _whole_numbers(values: pl.Series) -> pl.Series:
    """Int64, null where the value is not a whole number; `9.5e8` is one."""
    if not values.dtype.is_float():
        numbers = values.cast(pl.Int64, strict=False)
        if not numbers.has_nulls():
            return numbers
    floats = values.cast(pl.Float64, strict=False)
    whole = floats.is_finite() & (floats == floats.floor()) & (floats.abs() < 2.0**63)
    rounded = floats.set(~whole.fill_null(False), None).cast(pl.Int64)
    return rounded if values.dtype.is_float() else numbers.zip_with(numbers.is_not_null(), rounded)


class _Ids(_Collector):
    """A column of ids: `Int64` as long as every id is an integer, else `String`."""

    def __init__(self, role: str, column: str | int) -> None:
        super().__init__(role, column)
        self.rows = 0
        self.words = 0
        self.first_word = ""
        self.word_on_first_line = False
        # The first integer that is no id: "place: what is wrong".
        self.wrong_integer = ""

    def add(self, values: pl.Series, place: Place) -> None:
        self.rows += len(values)
        integers = values.cast(pl.Int64, strict=False)
        if values.dtype.is_integer():
            exact = integers.is_not_null()
        else:
            exact = (integers.cast(pl.String) == values).fill_null(False)
        if exact.all():
            self._check_sign(integers, place)
            self.parts.append(integers)
            return
        empty = values.is_null()
        if not values.dtype.is_integer():
            empty |= (values.str.strip_chars() == "").fill_null(True)
        if empty.any():
            raise InputError(
                f"{place(int(empty.arg_max() or 0))}: {self.label} is empty; give every line an id"
            )
        large = ~exact
        if not values.dtype.is_integer():
            large &= values.str.contains(r"^-?[1-9][0-9]{18,}$")
        if large.any() and not self.wrong_integer:
            row = int(large.arg_max() or 0)
            self.wrong_integer = (
                f"{place(row)}: {self.label} {values[row]} is outside 0..{_MAX_ID}; "
                "use smaller integers, or ids with a letter"
            )
        self._check_sign(integers.set(~exact, 0), place)
        words = ~exact & ~large
        if words.any():
            row = int(words.arg_max() or 0)
            if not self.words:
                self.first_word = f"{place(row)}: {self.label} {_shown(values[row])}"
                self.word_on_first_line = row == 0 and not self.parts
            self.words += int(words.sum())
        self.parts.append(values)

    def _check_sign(self, integers: pl.Series, place: Place) -> None:
        if self.wrong_integer or (integers.min() or 0) >= 0:  # type: ignore[operator]
            return
        row = int((integers < 0).arg_max() or 0)
        self.wrong_integer = (
            f"{place(row)}: {self.label} {integers[row]} is negative; ids count from 0"
        )

    def finish(self, has_header: bool) -> pl.Series:
        if 2 * self.words < self.rows:
            if self.words:
                hint = "; if this is a header, name the columns instead of their positions"
                raise InputError(
                    f"{self.first_word} is not an integer as most ids of the column are; correct "
                    "the line, or make all of them words"
                    + (hint if self.word_on_first_line and not has_header else "")
                )
            if self.wrong_integer:
                raise InputError(self.wrong_integer)
            return super().finish(has_header)
        self.parts = [part.cast(pl.String) for part in self.parts]
        return super().finish(has_header)


def _collector(role: str, column: str | int) -> _Collector:
    return (_Numbers if role in ("rating", "timestamp") else _Ids)(role, column)


def _table(path: str, collected: dict[str, _Collector], has_header: bool) -> pl.DataFrame:
    first = next(iter(collected.values()))
    if not any(len(part) for part in first.parts):
        raise InputError(f"{path}: has no interactions; give a file with at least one line of data")
    return pl.DataFrame(
        [column.finish(has_header).alias(role) for role, column in collected.items()]
    )


def _shown(value: object) -> str:
    """A value for a message: quoted, on one line, not endless."""
    text = "(empty)" if value is None or value == "" else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------------------------------------
# Lists of integers: one user per line.


def read_adjacency(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read lines of `user item item ...`; a user without items gives no rows.

    Args:
      path: the file, maybe compressed (`.gz`). Ids are integers between blanks or tabs.

    Returns:
      Columns `user` and `item`, both Int64, in file order.

    Raises:
      InputError: the file or one of its lines cannot be used, or no user has an item.
    """
    name = _checked_file(path)
    users, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in _blocks(name):
        values, counts = _integers(block)
        firsts = _first_tokens(block, counts, "a user without items keeps its id")
        users.append(np.repeat(values[firsts], counts - 1))
        items.append(np.delete(values, firsts))
    return _pairs(name, users, items)


def read_user_lists(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read lines of `count item item ...`; the user is the 0-based number of the line.

    Args:
      path: the file, maybe compressed (`.gz`).

    Returns:
      Columns `user` and `item`, both Int64, in file order.

    Raises:
      InputError: the file or one of its lines cannot be used, a count differs from the number
        of items on its line, or no user has an item.
    """
    name = _checked_file(path)
    users, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in _blocks(name):
        values, counts = _integers(block)
        firsts = _first_tokens(block, counts, "a user without items is written 0")
        wrong = np.flatnonzero(values[firsts] != counts - 1)
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{_line_place(block, row)}: announces {values[firsts[row]]} items and lists "
                f"{counts[row] - 1}; correct the count"
            )
        first_user = block.line - 1
        users.append(np.repeat(np.arange(first_user, first_user + counts.size), counts - 1))
        items.append(np.delete(values, firsts))
    return _pairs(name, users, items)


def _first_tokens(block: _Block, counts: np.ndarray, remedy: str) -> np.ndarray:
    """`[L]` index of the first integer of each line; no line may be blank."""
    blank = np.flatnonzero(counts == 0)
    if blank.size:
        raise InputError(f"{_line_place(block, int(blank[0]))}: is blank; {remedy}")
    return np.cumsum(counts) - counts


def _pairs(path: str, users: list[np.ndarray], items: list[np.ndarray]) -> pl.DataFrame:
    frame = pl.DataFrame({"user": np.concatenate(users), "item": np.concatenate(items)})
    if not frame.height:
        raise InputError(f"{path}: has no interactions; give a file where some user has an item")
    return frame


def _integers(block: _Block) -> tuple[np.ndarray, np.ndarray]:
    """The integers of a block, all `[T]` int64 in order, and how many are on each line `[L]`.

    Raises:
      InputError: a word that is not an integer from 0 to 2^63 - 1 without leading zeros.
    """
    text = np.frombuffer(block.text, np.uint8)
    digit = text - np.uint8(_ZERO) < 10
    other = ~(digit | np.isin(text, (32, 9, _RETURN, _NEWLINE)))
    if other.any():
        _raise_bad_integer(block, int(other.argmax()))
    # A token starts where digit turns true and stops where it turns false again.
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    starts, stops = edges[0::2], edges[1::2]
    lengths = stops - starts
    doubtful = (lengths > 1) & (text[starts] == _ZERO) | (lengths > 18)
    for token in np.flatnonzero(doubtful):
        digits = block.text[starts[token] : stops[token]]
        if digits.startswith(b"0") or int(digits[:20]) > _MAX_ID:
            _raise_bad_integer(block, int(starts[token]))
    values = np.zeros(starts.size, np.int64)
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        values[longer] += (text[stops[longer] - 1 - place] - np.int64(_ZERO)) * 10**place
    lines = np.searchsorted(starts, np.flatnonzero(text == _NEWLINE))
    counts = np.diff(lines, prepend=0, append=starts.size)
    return values, counts


def _raise_bad_integer(block: _Block, position: int) -> None:
    line = block.line + block.text.count(b"\n", 0, position)
    start = position
    while start and not block.text[start - 1 : start].isspace():
        start -= 1
    word = block.text[start:].split(None, 1)[0].decode()
    raise InputError(
        f"{block.path} line {line}: {_shown(word)} is not an id; use integers from 0 to {_MAX_ID} "
        "with a blank between them"
    )


# ---------------------------------------------------------------------------------------------
# Leave-one-out with given negatives.


class GivenNegatives(NamedTuple):
    """Test pairs with the negatives to rank them among.

    Attributes:
      frame: the rating file: `user`, `item` and, where the file has them, `rating` and
        `timestamp`; `n` rows.
      users: `[n]` int64, the user of each row.
      items: `[n]` int64, the positive of each row.
      negatives: `[n, m]` int64.
    """

    frame: pl.DataFrame
    users: np.ndarray
    items: np.ndarray
    negatives: np.ndarray


def read_ncf(
    rating_path: str | os.PathLike[str], negative_path: str | os.PathLike[str]
) -> GivenNegatives:
    """Read the test files of Neural Collaborative Filtering.

    Args:
      rating_path: lines of `user TAB item [TAB rating [TAB timestamp]]`.
      negative_path: lines of `(user,item) TAB negative TAB negative ...`, in the same order
        and equally many on each line.

    Raises:
      InputError: a file or a line cannot be used, or the two files do not match.
    """
    name = _checked_file(negative_path)
    frame = _read_ncf_ratings(_checked_file(rating_path))
    parts = []
    width = 0
    for block in _blocks(name):
        values, counts = _integers(_without_brackets(block))
        width = width or int(counts[0])
        wrong = np.flatnonzero(counts != max(width, 3))
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{_line_place(block, row)}: has {counts[row] - 2} negatives where the first line "
                f"has {max(width - 2, 1)}; give every line as many, at least one"
            )
        parts.append(values.reshape(-1, width))
    if not parts:
        raise InputError(f"{name}: is empty; give lines of (user,item) TAB negative TAB ...")
    table = np.concatenate(parts)
    users, items = frame["user"].to_numpy(), frame["item"].to_numpy()
    _check_same_pairs(os.fspath(rating_path), users, items, name, table)
    return GivenNegatives(frame, users, items, np.ascontiguousarray(table[:, 2:]))


def _read_ncf_ratings(path: str) -> pl.DataFrame:
    block = next(_blocks(path), None)
    if block is None:
        raise InputError(f"{path}: is empty; give lines of user TAB item TAB rating TAB timestamp")
    width = block.text.partition(b"\n")[0].count(b"\t") + 1
    if not 2 <= width <= 4:
        raise InputError(
            f"{path} line 1: has {width} fields between tabs; use user, item[, rating[, timestamp]]"
        )
    columns = Columns(0, 1, 2 if width > 2 else None, 3 if width > 3 else None)
    frame = read_table(path, columns, "tsv")
    for role in ("user", "item"):
        if frame[role].dtype != pl.Int64:
            raise InputError(f"{path} line 1: {role} ids are words; use integers")
    return frame


def _without_brackets(block: _Block) -> _Block:
    """`(user,item) TAB ...` with blanks for brackets and comma, after checking the form."""
    text = np.frombuffer(block.text, np.uint8)
    newlines = np.flatnonzero(text == _NEWLINE)
    begins = np.concatenate([[0], newlines + 1])
    marks = np.flatnonzero(np.isin(text, tuple(b"(,)")))
    per_line = np.diff(np.searchsorted(marks, newlines), prepend=0, append=0)
    per_line[-1] = marks.size - per_line[:-1].sum()
    wrong = per_line != 3
    if not wrong.any():
        first, comma, last = marks.reshape(-1, 3).T
        wrong = (first != begins) | (text[first] != ord("(")) | (text[comma] != ord(","))
        wrong |= (text[last] != ord(")")) | (comma - first < 2) | (last - comma < 2)
        after = text[np.minimum(last + 1, text.size - 1)]
        wrong |= (last + 1 < text.size) & ~np.isin(after, tuple(b"\t\r\n"))
        blanks = np.flatnonzero(np.isin(text, (32, 9)))
        wrong |= np.searchsorted(blanks, first) != np.searchsorted(blanks, last)
    if wrong.any():
        raise InputError(
            f"{_line_place(block, int(wrong.argmax()))}: does not start with (user,item); write "
            "(user,item) TAB negative TAB negative ..."
        )
    return block._replace(text=block.text.translate(bytes.maketrans(b"(,)", b"   ")))


def _check_same_pairs(
    rating_path: str, users: np.ndarray, items: np.ndarray, negative_path: str, table: np.ndarray
) -> None:
    common = min(users.size, len(table))
    differs = (users[:common] != table[:common, 0]) | (items[:common] != table[:common, 1])
    if differs.any():
        row = int(differs.argmax())
        raise InputError(
            f"{negative_path} line {row + 1}: is about ({table[row, 0]},{table[row, 1]}) where "
            f"{rating_path} has ({users[row]},{items[row]}); give both files in the same order"
        )
    if users.size != len(table):
        raise InputError(
            f"{negative_path}: ends after line {len(table)} but {rating_path} has {users.size} "
            "lines; give one line for each"
        )


# ---------------------------------------------------------------------------------------------
# Blocks of whole lines.


def _blocks(path: str, quoted: bool = False) -> Iterator[_Block]:
    """Read a file, decompressed where its name ends in `.gz`, in blocks of whole lines.

    Blank lines at the end of the file, and a byte order mark at its start, are left out.
    With `quoted`, a block ends only where no quoted field is open.
    """
    line, rest = 1, b""
    try:
        file: BinaryIO
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:  # type: ignore[assignment]
            while chunk := file.read(BLOCK_BYTES):
                if line == 1 and not rest:
                    chunk = chunk.removeprefix(b"\xef\xbb\xbf")
                rest += chunk
                end = _last_line_end(rest, quoted)
                if end >= 0:
                    block = _checked_block(path, rest[:end], line)
                    rest = rest[end + 1 :]
                    line += block.text.count(b"\n") + 1
                    yield block
    except (OSError, EOFError, zlib.error) as error:
        detail = str(error).replace("\n", " ")
        raise InputError(
            f"{path}: cannot be read past line {line} ({detail}); check the file or fetch it again"
        ) from None
    rest = rest.rstrip(b"\r\n")
    if rest:
        yield _checked_block(path, rest, line)


def _last_line_end(text: bytes, quoted: bool) -> int:
    """Position of the newline to cut at, -1 for none; blank lines at the end stay behind it."""
    end = text.rfind(b"\n", 0, len(text.rstrip(b"\r\n")))
    if quoted and end >= 0 and text.count(b'"', 0, end) % 2:
        ends = _outside_quotes(text[: end + 1], _NEWLINE)
        return int(ends[-1]) if ends.size else -1
    return end


def _checked_block(path: str, text: bytes, line: int) -> _Block:
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            wrong = line + text.count(b"\n", 0, error.start)
            raise InputError(
                f"{path} line {wrong}: byte 0x{text[error.start]:02x} is not UTF-8; convert the "
                "file, for instance with: iconv -f LATIN1 -t UTF-8"
            ) from None
    zero = text.find(b"\0")
    if zero >= 0:
        wrong = line + text.count(b"\n", 0, zero)
        raise InputError(f"{path} line {wrong}: holds a NUL byte; give a UTF-8 text file")
    return _Block(path, text, line)

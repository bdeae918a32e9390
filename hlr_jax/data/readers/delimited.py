"""Read text with separators between fields: CSV, TSV, and the `::` of MovieLens."""

import functools
import itertools
import re
from collections.abc import Container, Iterable, Mapping

import numpy as np
import polars as pl

from hlr_jax.data.readers.blocks import (
    NEWLINE,
    QUOTE,
    RETURN,
    Block,
    positions,
    read_blocks,
    shown,
)
from hlr_jax.data.readers.columns import Table
from hlr_jax.errors import InputError


def read_delimited(
    path: str, roles: Mapping[str, str | int], separator: str, quoted: bool
) -> pl.DataFrame:
    """Read some columns of a table; see `read_table`.

    Args:
      path: of the file.
      roles: the columns to read, by role: all of them names in the header, or all of them 0-based
        positions in a file without a header.
      separator: between fields.
      quoted: whether fields may be quoted.
    """
    numbers = {role: _as_position(column) for role, column in roles.items()}
    given = {role: number for role, number in numbers.items() if number is not None}
    if 0 < len(given) < len(roles):
        raise InputError(
            f"{path}: columns {list(roles.values())} mix names and positions; use names for a "
            "file with a header, positions for one without"
        )
    has_header = not given
    # Quoting is defined for separators of one byte only.
    quoted = quoted and len(separator.encode()) == 1
    table = Table(path, roles, has_header)
    blocks = read_blocks(path, quoted)
    first = next(blocks, None)
    if first is None:
        return table.finish()
    fields, after = _first_record(first, separator, quoted)
    if has_header:
        given = _positions_of_names(path, roles, fields)
    if len(fields) < 2:
        raise InputError(
            f"{path} line 1: only one column when split at {separator!r}; "
            "give the right format or separator"
        )
    if not has_header:
        _check_positions(path, roles, given, len(fields))
    names = [f"_{position}" for position in range(len(fields))]
    for role, position in given.items():
        names[position] = role
    start = [after] if has_header else [first]
    rest = itertools.chain(filter(None, start), blocks)
    return _read_rows(table, rest, names, list(roles), separator, quoted)


def read_numbers(path: str, separator: str, quoted: bool, ids: Container[str]) -> pl.DataFrame:
    """Read a table with a header, whose other lines have an item's id and then numbers.

    Args:
      path: of the file.
      separator: between fields.
      quoted: whether fields may be quoted.
      ids: of items. If the first line starts with one of them, the header is missing.

    Returns:
      Columns `item` (Int64 or String), and Float64 ones for the numbers, in file order.
    """
    blocks = read_blocks(path, quoted)
    first = next(blocks, None)
    if first is None:
        raise InputError(f"{path}: is empty; give a header, and a line for each item")
    fields, after = _first_record(first, separator, quoted)
    if len(fields) < 2:
        raise InputError(
            f"{path} line 1: only one column when split at {separator!r}; give an item's id and "
            "then numbers"
        )
    if all(map(_is_number, fields[1:])) and (fields[0] in ids or _is_number(fields[0])):
        raise InputError(
            f"{path} line 1: is that of an item ({', '.join(map(shown, fields[:3]))}); give a "
            "header above it"
        )
    start = after or next(blocks, None)
    if start is None:
        raise InputError(f"{path}: has no line but the header; give a line for each item")
    # The header may have any names, even the same name twice, so they cannot be the roles.
    roles = {"item": fields[0]} | {f"feature {n}": fields[n] for n in range(1, len(fields))}
    names = list(roles)
    rest = itertools.chain([start], blocks)
    return _read_rows(Table(path, roles), rest, names, names, separator, quoted)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_rows(
    table: Table,
    blocks: Iterable[Block],
    names: list[str],
    wanted: list[str],
    separator: str,
    quoted: bool,
) -> pl.DataFrame:
    """Read the columns `wanted` of blocks whose columns are `names`, and add them to the table."""
    for block in blocks:
        block, byte = _with_single_byte(block, separator)
        ends = _record_ends(block, byte, len(names), quoted)
        place = functools.partial(_place, block, ends)
        table.add(_parsed(block, names, wanted, byte, quoted, ends.size + 1), place)
    return table.finish()


def _as_position(column: str | int) -> int | None:
    """Return the position that a column is given by; None if it is given by its name."""
    if isinstance(column, int):
        if column < 0:
            raise InputError(f"columns: position {column} is negative; positions count from 0")
        return column
    return int(column) if re.fullmatch(r"0|[1-9][0-9]{0,8}", column) else None


def _first_record(block: Block, separator: str, quoted: bool) -> tuple[list[str], Block | None]:
    """Split off the first record; returns its fields, and the rest of the block if there is any."""
    ends = positions(block.text, NEWLINE, quoted)
    end = int(ends[0]) if ends.size else len(block.text)
    record = block.text[:end].removesuffix(b"\r")
    if quoted:
        # If there is no such separator, that is the error to report, and not the quotes.
        if separator.encode() in record:
            _check_quotes(block._replace(text=record), ord(separator))
        cuts = positions(record, ord(separator), quoted).tolist()
        edges = itertools.pairwise([-1, *cuts, len(record)])
        fields = [_unquoted(record[before + 1 : after].decode()) for before, after in edges]
    else:
        fields = record.decode().split(separator)
    if not ends.size:
        return fields, None
    return fields, Block(block.path, block.text[end + 1 :], block.line + record.count(b"\n") + 1)


def _unquoted(field: str) -> str:
    """Remove the quotes around a field, and halve those in it."""
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _positions_of_names(
    path: str, roles: Mapping[str, str | int], header: list[str]
) -> dict[str, int]:
    found = {}
    for role, column in roles.items():
        if header.count(str(column)) != 1:
            fault = "is in the header twice" if column in header else "is not in the header"
            listed = ", ".join(shown(name) for name in header[:20])
            # A header of one column is a wrong separator rather than a wrong name.
            hint = "" if len(header) > 1 else "; one column only: give the right separator"
            raise InputError(
                f"{path} line 1: {role} column {column!r} {fault}, which has {listed}{hint}; "
                "name one of these, or give 0-based positions if the file has no header"
            )
        found[role] = header.index(str(column))
    return found


def _check_positions(
    path: str, roles: Mapping[str, str | int], given: Mapping[str, int], width: int
) -> None:
    for role, position in given.items():
        if position >= width:
            raise InputError(
                f"{path} line 1: {role} column {roles[role]} is beyond the {width} columns; "
                f"positions are 0 to {width - 1}"
            )


def _with_single_byte(block: Block, separator: str) -> tuple[Block, int]:
    """Return the block with a separator of one byte, and this byte, as polars needs it."""
    wanted = separator.encode()
    if len(wanted) == 1:
        return block, wanted[0]
    for byte in (31, 30, 29, 28, *range(1, 9)):
        if bytes([byte]) not in block.text:
            return block._replace(text=block.text.replace(wanted, bytes([byte]))), byte
    raise InputError(f"{block.at_line(0)}: holds control characters; remove them")


def _record_ends(block: Block, separator: int, width: int, quoted: bool) -> np.ndarray:
    """Return the positions of newlines between records, each of which must have `width` fields."""
    if quoted:
        _check_quotes(block, separator)
    ends = positions(block.text, NEWLINE, quoted)
    separators = positions(block.text, separator, quoted)
    expected = width - 1
    if separators.size == expected * (ends.size + 1):
        # Quick, and true of most files: if their number is right, and the first and the last
        # separator of each record lie within it, then every record has the same number of them.
        by_record = separators.reshape(-1, expected)
        if (by_record[1:, 0] > ends).all() and (by_record[:-1, -1] < ends).all():
            return ends
    before = np.searchsorted(separators, ends)
    counts = np.diff(before, prepend=0, append=separators.size)
    row = int(np.flatnonzero(counts != expected)[0])
    start = int(ends[row - 1]) + 1 if row else 0
    end = int(ends[row]) if row < ends.size else None
    if not block.text[start:end].strip():
        raise InputError(f"{block.at_byte(start)}: is blank; remove the line")
    raise InputError(
        f"{block.at_byte(start)}: has {counts[row] + 1} fields where the first line has {width}; "
        "correct the line, or the separator"
    )


def _check_quotes(block: Block, separator: int) -> None:
    """Check that quotes are around whole fields, and doubled within them."""
    if b'"' not in block.text:
        return
    # Newlines at both ends, so that there is a byte before and after every quote.
    text = np.frombuffer(b"\n%b\n" % block.text, np.uint8)
    quotes = np.flatnonzero(text == QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    opens = np.isin(text[opening - 1], (separator, NEWLINE, QUOTE))
    closes = np.isin(text[closing + 1], (separator, NEWLINE, RETURN, QUOTE))
    stray = np.concatenate([opening[~opens], closing[~closes]])
    if quotes.size % 2 and not stray.size:
        stray = quotes[-1:]
    if stray.size:
        raise InputError(
            f"{block.at_byte(int(stray.min()) - 1)}: a stray or unclosed quote; quote whole fields "
            "and double the quotes inside them"
        )


def _place(block: Block, ends: np.ndarray, row: int) -> str:
    """Name the line on which a record begins."""
    return block.at_byte(int(ends[row - 1]) + 1 if row else 0)


def _parsed(
    block: Block, names: list[str], wanted: list[str], separator: int, quoted: bool, height: int
) -> pl.DataFrame:
    """Read the columns `wanted` as text, in a block of `height` records with columns `names`."""
    # polars takes text that starts with some bytes, such as "x^", for a compressed file. A header
    # in front of it prevents that.
    header = chr(separator).join(names).encode()
    try:
        frame = pl.read_csv(
            header + b"\n" + block.text,
            columns=wanted,
            separator=chr(separator),
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
        if frame.height == height:
            return frame
    except (pl.exceptions.PolarsError, OSError):
        pass
    raise InputError(
        f"{block.at_line(0)}: this line or one of those after it cannot be split into fields; "
        "check quotes and separators"
    )

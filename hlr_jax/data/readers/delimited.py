"""Text with separators between fields: CSV, TSV, and `::` as MovieLens has it."""

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
    """Read the columns of `roles`, all names or all positions; see `read_table`."""
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
        given = _find_names(path, roles, fields)
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
    """Read a table with a header whose lines have an item's id and then numbers.

    Args:
      ids: what is no name of a column of ids, but one of these.

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
    # The names in the header may be anything; two may be the same.
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
    """All records of the blocks, in which the wanted of the columns `names` are kept."""
    for block in blocks:
        block, byte = _with_single_byte(block, separator)
        ends = _record_ends(block, byte, len(names), quoted)
        place = functools.partial(_place, block, ends)
        table.add(_parsed(block, names, wanted, byte, quoted, ends.size + 1), place)
    return table.finish()


def _as_position(column: str | int) -> int | None:
    if isinstance(column, int):
        if column < 0:
            raise InputError(f"columns: position {column} is negative; positions count from 0")
        return column
    return int(column) if re.fullmatch(r"0|[1-9][0-9]{0,8}", column) else None


def _first_record(block: Block, separator: str, quoted: bool) -> tuple[list[str], Block | None]:
    """The fields of the first record, and the block after it where there is one."""
    ends = positions(block.text, NEWLINE, quoted)
    end = int(ends[0]) if ends.size else len(block.text)
    record = block.text[:end].removesuffix(b"\r")
    if quoted:
        # A separator that is not there is the wrong one, whatever the quotes look like to it.
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
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _find_names(path: str, roles: Mapping[str, str | int], header: list[str]) -> dict[str, int]:
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
    """The block with a separator of one byte, and that byte: all that polars knows."""
    wanted = separator.encode()
    if len(wanted) == 1:
        return block, wanted[0]
    for byte in (31, 30, 29, 28, *range(1, 9)):
        if bytes([byte]) not in block.text:
            return block._replace(text=block.text.replace(wanted, bytes([byte]))), byte
    raise InputError(f"{block.at_line(0)}: holds control characters; remove them")


def _record_ends(block: Block, separator: int, width: int, quoted: bool) -> np.ndarray:
    """Positions of the newlines between records, of which each must have `width` fields."""
    if quoted:
        _check_quotes(block, separator)
    ends = positions(block.text, NEWLINE, quoted)
    separators = positions(block.text, separator, quoted)
    expected = width - 1
    if separators.size == expected * (ends.size + 1):
        # The common case, without a count per record: the first and the last separator of
        # every record lie between the record's ends.
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
    """Check that quotes open and close at the border of a field, and are doubled inside one."""
    if b'"' not in block.text:
        return
    # Newlines around it, so that every quote has a neighbour.
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
    return block.at_byte(int(ends[row - 1]) + 1 if row else 0)


def _parsed(
    block: Block, names: list[str], wanted: list[str], separator: int, quoted: bool, height: int
) -> pl.DataFrame:
    """The wanted of the columns called `names`, as text."""
    # With a header of our own the text can never start like a compressed file, which polars
    # would take it for ("x^" is enough).
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

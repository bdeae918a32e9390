"""Read text with separators between fields: CSV, TSV, and the `::` of MovieLens."""

import functools
import itertools
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
from hlr_jax.data.readers.dialects import (
    Dialect,
    Layout,
    as_position,
    has_names,
    is_typed,
    names_of,
)
from hlr_jax.errors import InputError

# Separators that people write a blank behind; behind tabs it belongs to a text.
_BLANKS_AFTER = (",", ";")


def read_delimited(
    path: str, roles: Mapping[str, str | int], layout: Layout, dialect: Dialect
) -> pl.DataFrame:
    """Read some columns of a table; see `read_table`.

    Args:
      path: of the file.
      roles: the columns to read, by role: all of them names in the header, or all of them 0-based
        positions in a file without a header.
      layout: how lines are split.
      dialect: what else is known of the file.
    """
    numbers = {role: as_position(column) for role, column in roles.items()}
    given = {role: number for role, number in numbers.items() if number is not None}
    if 0 < len(given) < len(roles):
        raise InputError(
            f"{path}: columns {list(roles.values())} mix names and positions; use names for a "
            "file with a header, positions for one without"
        )
    blocks = read_blocks(path, layout.quoted, dialect.encoding)
    first = next(blocks, None)
    if first is None:
        return Table(path, roles).finish()
    fields, after = _first_record(first, layout)
    has_header = not given or has_names(fields, roles)
    if has_header:
        given = _positions_of_names(path, roles, fields)
    if len(fields) < 2:
        raise InputError(
            f"{path} line 1: only one column when split at {layout.separator!r}; give the right "
            "config.data.format or config.data.separator"
        )
    if not has_header:
        _check_positions(path, roles, given, len(fields))
    names = [f"_{position}" for position in range(len(fields))]
    for role, position in given.items():
        names[position] = role
    start = [after] if has_header else [first]
    rest = itertools.chain(filter(None, start), blocks)
    table = Table(path, roles, has_header, dialect)
    return _read_rows(table, rest, names, list(roles), layout)


def read_numbers(path: str, layout: Layout, ids: Container[str]) -> pl.DataFrame:
    """Read a table with a header, whose other lines have an item's id and then numbers.

    Args:
      path: of the file.
      layout: how lines are split.
      ids: of items. If the first line starts with one of them, the header is missing.

    Returns:
      Columns `item` (Int64 or String), and Float64 ones for the numbers, in file order.
    """
    blocks = read_blocks(path, layout.quoted)
    first = next(blocks, None)
    if first is None:
        raise InputError(f"{path}: is empty; give a header, and a line for each item")
    fields, after = _first_record(first, layout)
    if len(fields) < 2:
        raise InputError(
            f"{path} line 1: only one column when split at {layout.separator!r}; give an item's id "
            "and then numbers"
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
    return _read_rows(Table(path, roles), rest, names, names, layout)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_rows(
    table: Table, blocks: Iterable[Block], names: list[str], wanted: list[str], layout: Layout
) -> pl.DataFrame:
    """Read the columns `wanted` of blocks whose columns are `names`, and add them to the table."""
    for block in blocks:
        block, byte = _with_single_byte(block, layout.separator)
        if layout.separator in _BLANKS_AFTER:
            block = _without_blanks(block, byte, layout.quoted)
        text, starts = _records(table, block, byte, len(names), layout.quoted)
        if starts.size:
            place = functools.partial(_place, block, starts)
            frame = _parsed(block._replace(text=text), names, wanted, byte, layout.quoted)
            if frame is None or frame.height != starts.size:
                raise InputError(
                    f"{place(0)}: this line or one of those after it cannot be split into fields; "
                    "check quotes and separators"
                )
            table.add(frame, place)
    return table.finish()


def _first_record(block: Block, layout: Layout) -> tuple[list[str], Block | None]:
    """Split off the first record; returns its fields, and the rest of the block if there is any."""
    separator, quoted = layout
    ends = positions(block.text, NEWLINE, quoted)
    end = int(ends[0]) if ends.size else len(block.text)
    record = block.text[:end].removesuffix(b"\r")
    if quoted:
        # If there is no such separator, that is the error to report, and not the quotes.
        if separator.encode() in record:
            checked = block._replace(text=record)
            if separator in _BLANKS_AFTER:
                checked = _without_blanks(checked, ord(separator), quoted)
            _check_quotes(checked, ord(separator))
        cuts = positions(record, ord(separator), quoted).tolist()
        edges = itertools.pairwise([-1, *cuts, len(record)])
        fields = [record[before + 1 : after].decode() for before, after in edges]
        if separator in _BLANKS_AFTER:
            fields = [field.lstrip(" ") for field in fields]
        fields = [_unquoted(field) for field in fields]
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
    names = names_of(header)
    found = {}
    for role, column in roles.items():
        wanted, present = str(column), names
        if wanted not in present:
            present = [name.strip() for name in names]
        if wanted not in present and wanted == role and is_typed(header):
            wanted = f"{role}_id"  # As RecBole calls it.
        if present.count(wanted) != 1:
            fault = "is in the header twice" if wanted in present else "is not in the header"
            listed = ", ".join(shown(name) for name in header[:20])
            # A header of one column is a wrong separator rather than a wrong name.
            hint = "" if len(header) > 1 else "; one column only: give config.data.separator"
            raise InputError(
                f"{path} line 1: {role} column {column!r} {fault}, which has {listed}{hint}; "
                "name one of these, or give 0-based positions if the file has no header"
            )
        found[role] = present.index(wanted)
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


def _without_blanks(block: Block, separator: int, quoted: bool) -> Block:
    """Leave out blanks at the start of fields, where `a, b` means `a,b`."""
    if b" " not in block.text:
        return block
    text = np.frombuffer(block.text, np.uint8)
    begins = np.concatenate(
        [positions(block.text, byte, quoted) for byte in (separator, NEWLINE)] + [[-1]]
    )
    blank = text == ord(" ")
    edges = np.flatnonzero(np.diff(blank, prepend=False, append=False))
    runs = edges.reshape(-1, 2)[np.isin(edges[0::2] - 1, begins)]  # [n, 2] from, to
    if not runs.size:
        return block
    change = np.zeros(text.size + 1, np.int8)
    change[runs[:, 0]], change[runs[:, 1]] = 1, -1
    return block._replace(text=text[np.cumsum(change[:-1], dtype=np.int8) == 0].tobytes())


def _records(
    table: Table, block: Block, separator: int, width: int, quoted: bool
) -> tuple[bytes, np.ndarray]:
    """Find the records of a block, each of which must have `width` fields.

    Returns:
      The text of the records that are to be read, without blank lines and those that the table
      drops; and the positions in the block where each of these begins, `[n]`.
    """
    if quoted:
        _check_quotes(block, separator)
    ends = positions(block.text, NEWLINE, quoted)
    separators = positions(block.text, separator, quoted)
    starts = np.append(0, ends + 1)
    expected = width - 1
    if separators.size == expected * starts.size:
        # Quick, and true of most files: if their number is right, and the first and the last
        # separator of each record lie within it, then every record has the same number of them.
        by_record = separators.reshape(-1, expected)
        if (by_record[1:, 0] > ends).all() and (by_record[:-1, -1] < ends).all():
            return block.text, starts
    counts = np.diff(np.searchsorted(separators, ends), prepend=0, append=separators.size)
    stops = np.append(ends, len(block.text))
    blank = np.zeros(starts.size, bool)
    for row in np.flatnonzero(counts == 0):
        blank[row] = not block.text[starts[row] : stops[row]].strip()
    table.blank_lines += int(blank.sum())
    wrong = (counts != expected) & ~blank
    if wrong.any():
        first = int(wrong.argmax())
        table.refuse(
            f"{block.at_byte(int(starts[first]))}: has {counts[first] + 1} fields where the first "
            f"line has {width}; correct the line, or config.data.separator",
            int(wrong.sum()),
        )
        table.drop(int(wrong.sum()))
    kept = np.flatnonzero(~blank & ~wrong)
    text = b"\n".join(block.text[starts[row] : stops[row]] for row in kept)
    return text, starts[kept]


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


def _place(block: Block, starts: np.ndarray, row: int) -> str:
    """Name the line on which a record begins."""
    return block.at_byte(int(starts[row]))


def _parsed(
    block: Block, names: list[str], wanted: list[str], separator: int, quoted: bool
) -> pl.DataFrame | None:
    """Read the columns `wanted` as text, in a block of records with columns `names`."""
    # polars takes text that starts with some bytes, such as "x^", for a compressed file. A header
    # in front of it prevents that.
    header = chr(separator).join(names).encode()
    try:
        return pl.read_csv(
            header + b"\n" + block.text,
            columns=wanted,
            separator=chr(separator),
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except (pl.exceptions.PolarsError, OSError):
        return None

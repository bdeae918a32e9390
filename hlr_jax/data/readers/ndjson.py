"""Read tables with a JSON object on each line."""

import json
from collections.abc import Mapping

import polars as pl

from hlr_jax.data.readers.blocks import Block, read_blocks, shown
from hlr_jax.data.readers.columns import Table
from hlr_jax.errors import InputError


def read_ndjson(path: str, names: Mapping[str, str]) -> pl.DataFrame:
    """Read some fields of each object; `names` has their names by role. See `read_table`."""
    table = Table(path, names)
    for block in read_blocks(path):
        if block.line == 1:
            _check_names(block, names)
        frame = _parsed(block, names)
        for role in ("user", "item"):
            _check_ids(block, frame.get_column(role), names[role])
        table.add(frame, block.at_line)
    return table.finish()


def _check_names(block: Block, names: Mapping[str, str]) -> None:
    first = _object(block, 0, block.text.partition(b"\n")[0])
    for role, name in names.items():
        if name not in first:
            listed = ", ".join(shown(key) for key in list(first)[:20])
            raise InputError(
                f"{block.at_line(0)}: {role} field {name!r} is not among {listed}; name one of "
                "these"
            )


def _parsed(block: Block, names: Mapping[str, str]) -> pl.DataFrame:
    """Read the fields as text, into columns that are named by role."""
    try:
        frame = pl.read_ndjson(block.text, schema=dict.fromkeys(names.values(), pl.String))
        if frame.height == block.text.count(b"\n") + 1:
            return frame.select(pl.col(name).alias(role) for role, name in names.items())
    except (pl.exceptions.PolarsError, OSError):
        pass
    # Python's parser is slow, but finds the line to name.
    for row, line in enumerate(block.text.split(b"\n")):
        _object(block, row, line)
    raise InputError(
        f"{block.at_line(0)}: this line or one of those after it is not valid JSON; "
        "write one object per line"
    )


def _object(block: Block, row: int, line: bytes) -> dict[str, object]:
    """Parse the line at `row` of a block."""
    place = block.at_line(row)
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


def _check_ids(block: Block, texts: pl.Series, name: str) -> None:
    """Check that no id is a list, an object or a boolean, all of which polars turns into text."""
    doubtful = texts.str.starts_with("[") | texts.str.starts_with("{")
    doubtful |= texts.is_in(["true", "false"])
    if not doubtful.any():
        return
    lines = block.text.split(b"\n")
    for row in doubtful.arg_true():
        value = _object(block, row, lines[row])[name]
        if not isinstance(value, str):
            raise InputError(
                f"{block.at_line(row)}: {name} {shown(value)} is not an id; use a string or an "
                "integer"
            )

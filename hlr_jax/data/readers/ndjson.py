"""Read tables with a JSON object on each line."""

from collections.abc import Mapping

import polars as pl

from hlr_jax.data.readers.blocks import read_blocks, shown, without_blank_lines
from hlr_jax.data.readers.columns import Place, Table
from hlr_jax.data.readers.dialects import Dialect
from hlr_jax.errors import InputError
from hlr_jax.files import parse_json


def read_ndjson(path: str, names: Mapping[str, str], dialect: Dialect) -> pl.DataFrame:
    """Read some fields of each object; `names` has their names by role. See `read_table`."""
    table = Table(path, names, dialect=dialect)
    is_first = True
    for block in read_blocks(path, encoding=dialect.encoding):
        text, place, blank = without_blank_lines(block)
        table.blank_lines += blank
        if not text:
            continue
        if is_first:
            _check_names(text, place, names)
            is_first = False
        frame = _parsed(text, place, names)
        for role in ("user", "item"):
            _check_ids(text, place, frame.get_column(role), names[role])
        table.add(frame, place)
    return table.finish()


def _check_names(text: bytes, place: Place, names: Mapping[str, str]) -> None:
    first = _object(place(0), text.partition(b"\n")[0])
    for role, name in names.items():
        if name not in first:
            listed = ", ".join(shown(key) for key in list(first)[:20])
            raise InputError(
                f"{place(0)}: {role} field {name!r} is not among {listed}; name one of these"
            )


def _parsed(text: bytes, place: Place, names: Mapping[str, str]) -> pl.DataFrame:
    """Read the fields as text, into columns that are named by role."""
    try:
        frame = pl.read_ndjson(text, schema=dict.fromkeys(names.values(), pl.String))
        if frame.height == text.count(b"\n") + 1:
            return frame.select(pl.col(name).alias(role) for role, name in names.items())
    except (pl.exceptions.PolarsError, OSError):
        pass
    # Python's parser is slow, but finds the line to name.
    for row, line in enumerate(text.split(b"\n")):
        _object(place(row), line)
    raise InputError(
        f"{place(0)}: this line or one of those after it is not valid JSON; "
        "write one object per line"
    )


def _object(place: str, line: bytes) -> dict[str, object]:
    remedy = "write one object per line"
    found: dict[str, object] = parse_json(line, place, dict, remedy, constants=False)
    return found


def _check_ids(text: bytes, place: Place, texts: pl.Series, name: str) -> None:
    """Check that no id is a list, an object or a boolean, all of which polars turns into text."""
    doubtful = texts.str.starts_with("[") | texts.str.starts_with("{")
    doubtful |= texts.is_in(["true", "false"])
    if not doubtful.any():
        return
    lines = text.split(b"\n")
    for row in doubtful.arg_true():
        value = _object(place(row), lines[row])[name]
        if not isinstance(value, str):
            raise InputError(
                f"{place(row)}: {name} {shown(value)} is not an id; use a string or an integer"
            )

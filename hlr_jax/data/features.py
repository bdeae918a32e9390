"""Features of items: genres and tags that public data sets ship, or a table of the user's."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hlr_jax.data import readers
from hlr_jax.data.readers.blocks import shown
from hlr_jax.data.registry import Features
from hlr_jax.errors import InputError


def read(path: pathlib.Path, form: Features | None, item_ids: np.ndarray) -> np.ndarray:
    """`[I, F]` float32: a row of length 1 for each item, of zeros where nothing is known of it.

    Args:
      form: of the file; None for a table as `readers.read_item_numbers` takes it.
      item_ids: `[I]` raw ids of the items, all different.

    Raises:
      InputError: the file cannot be read, or tells nothing of these items.
    """
    rows = {str(item): row for row, item in enumerate(item_ids.tolist())}
    table = _from_table(path, rows) if form is None else _from_pairs(path, form, rows)
    lengths = np.sqrt(np.einsum("if,if->i", table, table))
    # In place, because the table may be the largest of all.
    table /= np.where(lengths > 0, lengths, 1)[:, None]
    return table.astype(np.float32, copy=False)


def _from_table(path: pathlib.Path, rows: dict[str, int]) -> np.ndarray:
    frame = readers.read_item_numbers(path, rows)
    ids = list(map(str, frame["item"].to_list()))
    seen: set[str] = set()
    for item in ids:
        if item in seen:
            raise InputError(f"{path}: item {shown(item)} has two lines; leave one")
        seen.add(item)
    places = np.array([rows.get(item, -1) for item in ids])
    _require_some(path, places, ids, rows)
    table = np.zeros((len(rows), frame.width - 1))
    table[places[places >= 0]] = frame.drop("item").to_numpy()[places >= 0]
    return table


def _from_pairs(path: pathlib.Path, form: Features, rows: dict[str, int]) -> np.ndarray:
    """A table of 0 and 1, of the features that enough of the items have.

    Columns are in the order of flags and lists in the file, and of words in the alphabet.
    """
    if form.kind == "lists":
        frame = readers.read_user_lists(path)
        items, of = list(map(str, frame["item"].to_list())), frame["user"].to_numpy()
    else:
        pairs: list[tuple[str, Any]]
        pairs = list(_flags(path, form) if form.kind == "flags" else _words(path, form))
        items = [item for item, _ in pairs]
        of = np.unique([name for _, name in pairs], return_inverse=True)[1]
    places = np.array([rows.get(item, -1) for item in items], np.int64)
    _require_some(path, places, items, rows)
    pairs_of_rows = np.unique(np.stack([places, of])[:, places >= 0], axis=1)
    _, columns, counts = np.unique(pairs_of_rows[1], return_inverse=True, return_counts=True)
    enough = counts >= form.min_items
    if not enough.any():
        raise InputError(
            f"{path}: no feature is one of at least {form.min_items} items of the data set"
        )
    kept = enough[columns]
    table = np.zeros((len(rows), np.count_nonzero(enough)), np.float32)
    table[pairs_of_rows[0, kept], (np.cumsum(enough) - 1)[columns[kept]]] = 1
    return table


def _flags(path: pathlib.Path, form: Features) -> Iterator[tuple[str, int]]:
    """Items and, by position, what they have."""
    width = 0
    for line, fields in _lines(path, form):
        width = width or len(fields)
        flags = fields[form.first :]
        if len(fields) != width or not set(flags) <= {"0", "1"}:
            raise InputError(
                f"{path} line {line}: expected {width} fields, all after the first {form.first} "
                "of them 0 or 1; fetch the file again"
            )
        for number, flag in enumerate(flags):
            if flag == "1":
                yield fields[0], number


def _words(path: pathlib.Path, form: Features) -> Iterator[tuple[str, str]]:
    """Items and words of theirs."""
    for _, fields in _lines(path, form):
        for word in filter(None, fields[form.first].split("|")):
            yield fields[0], word


def _lines(path: pathlib.Path, form: Features) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, and its fields, of which there are more than `form.first`."""
    try:
        text = path.read_text(encoding=form.encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: features cannot be read ({error})") from None
    for line, content in enumerate(text.split("\n"), 1):
        fields = content.rstrip("\r").split(form.separator)
        if len(fields) > form.first:
            yield line, fields
        elif content.strip():
            raise InputError(
                f"{path} line {line}: has {len(fields)} fields when split at "
                f"{form.separator!r}, expected more than {form.first}; fetch the file again"
            )


def _require_some(
    path: pathlib.Path, places: np.ndarray, ids: list[str], rows: dict[str, int]
) -> None:
    if not (places >= 0).any():
        theirs, ours = (", ".join(map(shown, list(x)[:3])) for x in (ids, rows))
        raise InputError(
            f"{path}: describes no item of the data set: its ids are like {theirs or 'nothing'}, "
            f"the items' like {ours}"
        )

"""Read features of items: genres and tags of public data sets, or a table of the user's."""

import csv
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hlr_jax.data import readers
from hlr_jax.data.readers.blocks import shown
from hlr_jax.data.registry import FeatureFile
from hlr_jax.errors import InputError


def read(path: pathlib.Path, form: FeatureFile | None, item_ids: np.ndarray) -> np.ndarray:
    """Read a vector of features for each item, scaled to length 1.

    Args:
      path: the file.
      form: how the file is written; None for a table in the format of `readers.read_item_numbers`.
      item_ids: `[I]` raw ids of the items, all different.

    Returns:
      `[I, F]` float32; items that the file does not describe have a row of zeros.

    Raises:
      InputError: the file cannot be read, or describes none of these items.
    """
    rows = {str(item): row for row, item in enumerate(item_ids.tolist())}
    table = _from_table(path, rows) if form is None else _from_pairs(path, form, rows)
    lengths = np.sqrt(np.einsum("if,if->i", table, table))
    # In place, because this may be the largest array of the data set.
    table /= np.where(lengths > 0, lengths, 1)[:, None]
    return table.astype(np.float32, copy=False)


def labels(path: pathlib.Path, form: FeatureFile) -> dict[str, list[str]]:
    """Read what the features of each item are called, as its genres, by raw id.

    Args:
      form: one that `is_named`.

    Raises:
      InputError: the file cannot be read, or has flags without a name.
    """
    found: dict[str, list[str]] = {}
    for item, label in _named(path, form):
        found.setdefault(item, []).append(label)
    return found


def _named(path: pathlib.Path, form: FeatureFile) -> Iterator[tuple[str, str]]:
    if form.kind == "words":
        yield from _words(path, form)
        return
    for item, number in _flags(path, form):
        if number >= len(form.names):
            raise InputError(
                f"{path}: item {shown(item)} has flag {number + 1} of {len(form.names)} that have "
                "names; fetch the file again"
            )
        yield item, form.names[number]


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


def _from_pairs(path: pathlib.Path, form: FeatureFile, rows: dict[str, int]) -> np.ndarray:
    """Read a table of zeros and ones, with a column per feature that enough items have.

    Flags and lists are in the order of the file, words in alphabetical order.
    """
    if form.kind == "lists":
        frame = readers.read_user_lists(path)
        # A line is a feature here, where a reader of interactions has a user.
        items, labels = list(map(str, frame["item"].to_list())), frame["user"].to_numpy()
    else:
        pairs: list[tuple[str, Any]]
        pairs = list(_flags(path, form) if form.kind == "flags" else _words(path, form))
        items = [item for item, _ in pairs]
        labels = np.unique([label for _, label in pairs], return_inverse=True)[1]
    places = np.array([rows.get(item, -1) for item in items], np.int64)
    _require_some(path, places, items, rows)
    # [2, pairs]: item number and feature, each pair once.
    present = np.unique(np.stack([places, labels])[:, places >= 0], axis=1)
    _, columns, counts = np.unique(present[1], return_inverse=True, return_counts=True)
    enough = counts >= form.min_items
    if not enough.any():
        raise InputError(
            f"{path}: no feature is one of at least {form.min_items} items of the data set"
        )
    kept = enough[columns]
    table = np.zeros((len(rows), np.count_nonzero(enough)), np.float32)
    table[present[0, kept], (np.cumsum(enough) - 1)[columns[kept]]] = 1
    return table


def _flags(path: pathlib.Path, form: FeatureFile) -> Iterator[tuple[str, int]]:
    """Yield an item's id and a feature's position for every 1."""
    width = 0
    for line, fields in _lines(path, form):
        width = width or len(fields)
        flags = fields[form.first_field :]
        if len(fields) != width or not set(flags) <= {"0", "1"}:
            raise InputError(
                f"{path} line {line}: expected {width} fields, all after the first "
                f"{form.first_field} of them 0 or 1; fetch the file again"
            )
        for number, flag in enumerate(flags):
            if flag == "1":
                yield fields[0], number


def _words(path: pathlib.Path, form: FeatureFile) -> Iterator[tuple[str, str]]:
    """Yield an item's id and a word for every word of an item."""
    for _, fields in _lines(path, form):
        for word in filter(None, fields[form.first_field].split("|")):
            yield fields[0], word


def _lines(path: pathlib.Path, form: FeatureFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line; there is a field `form.first_field`."""
    for line, fields in enumerate(_rows(path, form), 1):
        if form.header and line == 1:
            continue
        if len(fields) > form.first_field:
            yield line, fields
        elif any(map(str.strip, fields)):
            raise InputError(
                f"{path} line {line}: has {len(fields)} fields when split at "
                f"{form.separator!r}, expected more than {form.first_field}; fetch the file again"
            )


def _rows(path: pathlib.Path, form: FeatureFile) -> Iterator[list[str]]:
    try:
        lines = [x.rstrip("\r") for x in path.read_text(encoding=form.encoding).split("\n")]
        # Only comma-separated tables quote their fields.
        if form.separator == ",":
            yield from csv.reader(lines)
        else:
            yield from (line.split(form.separator) for line in lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: features cannot be read ({error}); fetch the file again"
        ) from None


def _require_some(
    path: pathlib.Path, places: np.ndarray, ids: list[str], rows: dict[str, int]
) -> None:
    """Check that a file describes an item: `places` has its row for each of `ids`, or -1."""
    if not (places >= 0).any():
        theirs, ours = (", ".join(map(shown, list(x)[:3])) for x in (ids, rows))
        raise InputError(
            f"{path}: describes no item of the data set: its ids are like {theirs or 'nothing'}, "
            f"the items' like {ours}"
        )

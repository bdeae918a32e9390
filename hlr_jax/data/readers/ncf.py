"""Read the test files of Neural Collaborative Filtering: test pairs and negatives for each."""

import os
import re
from typing import NamedTuple

import numpy as np
import polars as pl

from hlr_jax.data.readers.blocks import Block, existing_file, read_blocks
from hlr_jax.data.readers.lists import integers
from hlr_jax.data.readers.tables import Columns, read_table
from hlr_jax.errors import InputError

_BRACKETS_TO_BLANKS = bytes.maketrans(b"(,)", b"   ")
_NEGATIVE_LINE = re.compile(rb"\([^(,)\s]+,[^(,)\s]+\)([\t\r][^(,)]*)?")


class GivenNegatives(NamedTuple):
    """Test pairs, and the negatives that each test item is ranked among.

    Attributes:
      frame: `n` test pairs with columns `user`, `item` and, if the file has them, `rating` and
        `timestamp`.
      users: `[n]` int64 user of each test pair.
      items: `[n]` int64 item of each test pair.
      negatives: `[n, m]` int64 items.
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
      negative_path: lines of `(user,item) TAB negative TAB negative ...` in the same order, all
        with the same number of negatives.

    Raises:
      InputError: a file or a line cannot be used, or the two files do not match.
    """
    negative_name = existing_file(negative_path)
    rating_name = existing_file(rating_path)
    frame = _read_ratings(rating_name)
    table = _read_negatives(negative_name)
    users, items = frame["user"].to_numpy(), frame["item"].to_numpy()
    common = min(users.size, len(table))
    differs = (users[:common] != table[:common, 0]) | (items[:common] != table[:common, 1])
    if differs.any():
        row = int(differs.argmax())
        raise InputError(
            f"{negative_name} line {row + 1}: is about ({table[row, 0]},{table[row, 1]}) where "
            f"{rating_name} has ({users[row]},{items[row]}); give both files in the same order"
        )
    if users.size != len(table):
        raise InputError(
            f"{negative_name}: ends after line {len(table)} but {rating_name} has {users.size} "
            "lines; give one line for each"
        )
    return GivenNegatives(frame, users, items, np.ascontiguousarray(table[:, 2:]))


def _read_ratings(path: str) -> pl.DataFrame:
    block = next(read_blocks(path), None)
    if block is None:
        raise InputError(f"{path}: is empty; give lines of user TAB item TAB rating TAB timestamp")
    width = block.text.partition(b"\n")[0].count(b"\t") + 1
    if not 2 <= width <= 4:
        raise InputError(
            f"{path} line 1: has {width} fields between tabs; use user, item[, rating[, timestamp]]"
        )
    frame = read_table(path, Columns(*range(width)), "tsv")
    for role in ("user", "item"):
        if frame[role].dtype != pl.Int64:
            raise InputError(f"{path} line 1: {role} ids are words; use integers")
    return frame


def _read_negatives(path: str) -> np.ndarray:
    """Read user, item and negatives of each line into `[n, 2 + m]` int64."""
    parts = []
    width = 0
    for block in read_blocks(path):
        values, counts = integers(_without_brackets(block))
        width = width or int(counts[0])
        wrong = np.flatnonzero(counts != max(width, 3))
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{block.at_line(row)}: has {counts[row] - 2} negatives where the first line "
                f"has {max(width - 2, 1)}; give every line as many, at least one"
            )
        parts.append(values.reshape(-1, width))
    if not parts:
        raise InputError(f"{path}: is empty; give lines of (user,item) TAB negative TAB ...")
    return np.concatenate(parts)


def _without_brackets(block: Block) -> Block:
    """Replace the brackets and the comma of `(user,item) TAB ...` by blanks."""
    for row, line in enumerate(block.text.split(b"\n")):
        if not _NEGATIVE_LINE.fullmatch(line):
            raise InputError(
                f"{block.at_line(row)}: does not start with (user,item); write "
                "(user,item) TAB negative TAB negative ..."
            )
    return block._replace(text=block.text.translate(_BRACKETS_TO_BLANKS))

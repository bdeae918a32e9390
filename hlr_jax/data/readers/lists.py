"""Read lists of integers: the items of a user, or of a tag, on each line."""

import os
import re
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import polars as pl

from hlr_jax.data.readers.blocks import NEWLINE, Block, existing_file, positions, read_blocks, shown
from hlr_jax.data.readers.columns import MAX_ID
from hlr_jax.errors import InputError

_ZERO = ord("0")
_WORD = re.compile(rb"[^ \t\r\n]+")


def read_adjacency(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read adjacency lists: lines of `user item item ...`.

    Args:
      path: the file, which may be compressed (`.gz`). Ids are integers with blanks or tabs between
        them.

    Returns:
      Columns `user` and `item`, both Int64, in the order of the file; a user without items has no
      row.

    Raises:
      InputError: the file or one of its lines cannot be used, or no user has an item.
    """
    name = existing_file(path)
    frames = [
        _pairs(users, sizes, items)
        for _, users, sizes, items in _lists(name, "a user without items keeps its id")
    ]
    return _joined(name, frames)


def read_user_lists(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read lists with counts: lines of `count item item ...`, the first of which is of user 0.

    Args:
      path: the file, which may be compressed (`.gz`).

    Returns:
      Columns `user` and `item`, both Int64, in the order of the file.

    Raises:
      InputError: the file or one of its lines cannot be used, a count differs from the number
        of items on its line, or no user has an item.
    """
    name = existing_file(path)
    frames = []
    for block, announced, sizes, items in _lists(name, "a line without items is written 0"):
        wrong = np.flatnonzero(announced != sizes)
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{block.at_line(row)}: announces {announced[row]} items and lists {sizes[row]}; "
                "correct the count"
            )
        frames.append(_pairs(block.line - 1 + np.arange(sizes.size), sizes, items))
    return _joined(name, frames)


def _lists(path: str, remedy: str) -> Iterator[tuple[Block, np.ndarray, np.ndarray, np.ndarray]]:
    """Split the lines of a file, block by block, into their first integers and the others.

    Args:
      path: of the file.
      remedy: what to do about blank lines, for the error message.

    Yields:
      A block of `L` lines; their first integers `[L]`; how many others each line has `[L]`; and
      the others of all lines.
    """
    for block in read_blocks(path):
        values, counts = integers(block)
        blank = np.flatnonzero(counts == 0)
        if blank.size:
            raise InputError(f"{block.at_line(int(blank[0]))}: is blank; {remedy}")
        firsts = np.cumsum(counts) - counts
        yield block, values[firsts], counts - 1, np.delete(values, firsts)


def _pairs(users: np.ndarray, sizes: np.ndarray, items: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"user": np.repeat(users, sizes), "item": items})


def _joined(path: str, frames: list[pl.DataFrame]) -> pl.DataFrame:
    if not any(frame.height for frame in frames):
        raise InputError(f"{path}: lists no items; give a file where some line has one")
    return pl.concat(frames, rechunk=True)


def integers(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Parse the integers of a block.

    Returns:
      All integers in order, `[T]` int64, and how many each line has, `[L]`.

    Raises:
      InputError: there is anything but integers from 0 to 2^63 - 1 without leading zeros.
    """
    text = np.frombuffer(block.text, np.uint8)
    digit = text - np.uint8(_ZERO) < 10
    other = ~(digit | np.isin(text, tuple(b" \t\r\n")))
    if other.any():
        _raise_bad_integer(block, int(other.argmax()))
    # An integer starts where `digit` turns true, and stops where it turns false again.
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    starts, stops = edges[0::2], edges[1::2]
    lengths = stops - starts
    doubtful = (lengths > 1) & (text[starts] == _ZERO) | (lengths > 18)
    for token in np.flatnonzero(doubtful):
        digits = block.text[starts[token] : stops[token]]
        if digits.startswith(b"0") or int(digits[:20]) > MAX_ID:
            _raise_bad_integer(block, int(starts[token]))
    values = np.zeros(starts.size, np.int64)
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        values[longer] += (text[stops[longer] - 1 - place] - np.int64(_ZERO)) * 10**place
    before = np.searchsorted(starts, positions(block.text, NEWLINE))
    return values, np.diff(before, prepend=0, append=starts.size)


def _raise_bad_integer(block: Block, position: int) -> NoReturn:
    """Raise InputError for the word that has the byte at `position`."""
    line_start = block.text.rfind(b"\n", 0, position) + 1
    words = _WORD.finditer(block.text, line_start)
    word = next(word[0] for word in words if word.end() > position).decode()
    raise InputError(
        f"{block.at_byte(position)}: {shown(word)} is not an id; use integers from 0 to {MAX_ID} "
        "with a blank between them"
    )

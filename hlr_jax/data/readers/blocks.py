"""Read text files in blocks of whole lines, and name places in them for error messages."""

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hlr_jax.errors import InputError

# Bytes read at a time: enough to keep polars' threads busy, and little beside the columns.
BLOCK_BYTES = 32 * 2**20

# Read to tell how a file is written.
HEAD_BYTES = 2**16

_BLANK_LINE = re.compile(rb"(?:\A|\n)[ \t\r]*(?:\n|\Z)")

_Readable = io.BufferedReader | gzip.GzipFile

# What a damaged file raises.
_UNREADABLE = (OSError, EOFError, zlib.error)

NEWLINE, QUOTE, RETURN = b'\n"\r'


class Block(NamedTuple):
    """Some lines of a file, without the newline after the last one.

    Attributes:
      path: of the file, for error messages.
      text: the lines: valid UTF-8 without NUL bytes.
      line: number of the first line in the file, from 1.
    """

    path: str
    text: bytes
    line: int

    def at_line(self, row: int) -> str:
        """Name a line of the block for an error message: `row` counts from 0."""
        return f"{self.path} line {self.line + row}"

    def at_byte(self, position: int) -> str:
        """Name the line that has the byte at `position` of the block, for an error message."""
        return self.at_line(self.text.count(b"\n", 0, position))


def existing_file(path: str | os.PathLike[str]) -> str:
    """Return the path as text, after checking that it is a file.

    Raises:
      InputError: there is no such file, or it is a folder.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        raise InputError(f"{name}: is a folder; give the path of a file")
    if not os.path.exists(name):
        raise InputError(f"{name}: no such file; check the path")
    return name


def first_lines(path: str, encoding: str = "utf-8") -> list[str]:
    """Read the first lines of a file, whatever ends them, to tell how it is written.

    Bytes that are no text are replaced: that is for `read_blocks` to name.
    """
    try:
        with _opened(path) as file:
            start = file.read(HEAD_BYTES)
    except _UNREADABLE:
        return []  # As above.
    text = _readable(start, encoding)
    lines = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))
    return lines[:-1] if len(start) == HEAD_BYTES and len(lines) > 1 else lines


def read_blocks(path: str, quoted: bool = False, encoding: str = "utf-8") -> Iterator[Block]:
    """Read a file in blocks of whole lines; it is decompressed if its name ends in `.gz`.

    Blank lines at the end of the file and a byte order mark at its start are left out. Lines may
    end in newlines, also behind carriage returns, or in carriage returns alone.

    Args:
      path: of the file.
      quoted: fields may be quoted and have newlines in them; no block ends within such a field.
      encoding: of the file; blocks are UTF-8.

    Yields:
      Blocks that together have all other lines of the file.

    Raises:
      InputError: the file cannot be read, or is not text of this encoding.
    """
    line, rest = 1, b""
    try:
        with _opened(path) as file:
            for chunk in _chunks(file, encoding):
                if line == 1 and not rest:
                    chunk = chunk.removeprefix(b"\xef\xbb\xbf")
                rest += chunk
                end = _last_line_end(rest, quoted)
                if end >= 0:
                    block = _checked(Block(path, rest[:end], line))
                    rest = rest[end + 1 :]
                    line += block.text.count(b"\n") + 1
                    yield block
    except _UNREADABLE as error:
        detail = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read past line {line} ({detail}); check the file or fetch it again"
        ) from None
    except UnicodeError as error:
        raise InputError(
            f"{path}: is not {encoding} past line {line} ({error}); set config.data.encoding"
        ) from None
    rest = rest.rstrip(b"\r\n")
    if rest:
        yield _checked(Block(path, rest, line))


def _opened(path: str) -> _Readable:
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb")


def _chunks(file: _Readable, encoding: str) -> Iterator[bytes]:
    """Read a file piece by piece, as UTF-8 with newlines at the ends of lines."""
    has_returns = _has_only_returns(file.read(HEAD_BYTES), encoding)
    file.seek(0)
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    decoder = codecs.getincrementaldecoder(encoding)()
    while chunk := file.read(BLOCK_BYTES):
        if not is_utf8:
            chunk = decoder.decode(chunk).encode()
        yield chunk.replace(b"\r", b"\n") if has_returns else chunk
    if not is_utf8:
        decoder.decode(b"", final=True)


def _readable(start: bytes, encoding: str) -> str:
    """Decode the first bytes of a file as far as they are text."""
    try:
        return codecs.getincrementaldecoder(encoding)("replace").decode(start)
    except UnicodeError:  # As of UTF-16 without its mark.
        return ""


def _has_only_returns(start: bytes, encoding: str) -> bool:
    """Whether lines end in carriage returns alone, as far as the first bytes of a file tell."""
    text = _readable(start, encoding)
    return "\r" in text and "\n" not in text


def _last_line_end(text: bytes, quoted: bool) -> int:
    """Return the position of the last newline to end a block at, -1 if there is none.

    Blank lines at the end are not counted, as they may be the end of the file.
    """
    end = text.rfind(b"\n", 0, len(text.rstrip(b"\r\n")))
    if quoted and end >= 0 and text.count(b'"', 0, end) % 2:
        ends = positions(text[:end], NEWLINE, quoted)
        return int(ends[-1]) if ends.size else -1
    return end


def _checked(block: Block) -> Block:
    """Return the block, after checking that it is UTF-8 text without NUL bytes."""
    text = block.text
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{block.at_byte(error.start)}: byte 0x{text[error.start]:02x} is not UTF-8; set "
                "config.data.encoding, as latin-1, or convert the file: iconv -f LATIN1 -t UTF-8"
            ) from None
    zero = text.find(b"\0")
    if zero >= 0:
        raise InputError(f"{block.at_byte(zero)}: holds a NUL byte; give a UTF-8 text file")
    return block


def positions(text: bytes, byte: int, quoted: bool = False) -> np.ndarray:
    """Return the positions of a byte, increasing; if `quoted`, only of those outside of quotes."""
    array = np.frombuffer(text, np.uint8)
    found = np.flatnonzero(array == byte)
    if quoted and b'"' in text:
        quotes = np.flatnonzero(array == QUOTE)
        found = found[np.searchsorted(quotes, found) % 2 == 0]
    return found


def without_blank_lines(block: Block) -> tuple[bytes, Callable[[int], str], int]:
    """Leave blank lines out.

    Returns:
      The other lines, what names one of them for an error message, and how many are left out.
    """
    if not _BLANK_LINE.search(block.text):
        return block.text, block.at_line, 0
    lines = block.text.split(b"\n")
    kept = [row for row, line in enumerate(lines) if line.strip()]
    text = b"\n".join(lines[row] for row in kept)
    return text, lambda row: block.at_line(kept[row]), len(lines) - len(kept)


def shown(value: object) -> str:
    """Format a value for an error message: quoted, on one line, and at most 60 characters."""
    text = "(empty)" if value is None or value == "" else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Where the library keeps files, and small files that a run writes, whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

from hlr_jax.errors import InputError


def cache_folder() -> pathlib.Path:
    """Return the folder for downloads and prepared data."""
    if own := os.environ.get("HLR_JAX_CACHE"):
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(shared).expanduser() / "hlr_jax"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to; it becomes `path` in one go, so that nobody ever reads half a file."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to write to; it becomes `folder` in one go, in place of what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as temporary:
        unfinished = pathlib.Path(temporary) / "unfinished"
        unfinished.mkdir()
        yield unfinished
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      InputError: the file holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); the file is damaged") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; the file is damaged")
    return value


def read_json_lines(path: pathlib.Path) -> list[Any]:
    """The records of a JSON-lines file, without an unfinished last line; none without a file.

    Raises:
      InputError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise InputError(
                f"{path} line {number}: not a JSON object; repair or delete the file"
            ) from None
    return records


def write_json_lines(path: pathlib.Path, records: list[Any]) -> None:
    """Write one JSON record per line."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def checksum(path: pathlib.Path) -> int:
    """Compute the CRC-32 of a file, which is not read as a whole."""
    found = 0
    with open(path, "rb") as content:
        while part := content.read(2**24):
            found = zlib.crc32(part, found)
    return found

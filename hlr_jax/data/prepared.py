"""Prepared data kept on disk, so that the second run need not read and filter again.

A folder is named by a hash of everything that decided its content, so it never goes stale; one
that cannot be read is as good as none. Its arrays are mapped into memory, not read: a process
that looks at a part of the users reads no more than that.
"""

import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)

# Bytes of prepared data that are checked before use; what is larger is only mapped.
MOST_CHECKED = 2**30


def folder_name(name: str, recipe: Mapping[str, Any]) -> str:
    """The name of what `recipe` makes; `recipe` must be plain JSON."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return f"{readable}-{digest[:24]}"


def save(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any]) -> None:
    """Write a .npy file per array and, for people to read, recipe.json; all of them or nothing.

    Where the disk does not allow it, the run goes on without.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as temporary:
            unfinished = pathlib.Path(temporary) / "whole"
            unfinished.mkdir()
            for name, array in arrays.items():
                np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
            checksums = {name: _checksum(unfinished / f"{name}.npy") for name in arrays}
            for name, value in (("recipe", recipe), ("checksums", checksums)):
                text = json.dumps(value, indent=1, sort_keys=True)
                (unfinished / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            # What is there already was damaged, or another process has just prepared the same.
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(unfinished, folder)
    except OSError as error:
        _log.warning("prepared data is not kept in %s: %s", folder.parent, error)


def restore(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays of a folder, mapped into memory, or nothing where it is missing or damaged.

    Of what is too large to be read at the start, only damage that changes its length is noticed.
    """
    if not folder.is_dir():
        return None
    try:
        checksums = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        files = {name: folder / f"{name}.npy" for name in checksums}
        if sum(file.stat().st_size for file in files.values()) <= MOST_CHECKED:
            for name, file in files.items():
                if _checksum(file) != checksums[name]:
                    raise ValueError(f"{file.name} has changed")
        return {
            name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items()
        }
    except (OSError, ValueError, EOFError) as error:
        _log.warning("prepared data in %s is damaged (%s); preparing again", folder, error)
        return None


def _checksum(file: pathlib.Path) -> int:
    checksum = 0
    with open(file, "rb") as content:
        while part := content.read(2**24):
            checksum = zlib.crc32(part, checksum)
    return checksum

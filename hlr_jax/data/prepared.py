"""Store prepared data on disk, so that the next run need not read and filter again.

A folder's name contains a hash of all that its content depends on, the content of files included,
so it is never out of date. A folder that is damaged is ignored. Arrays are mapped into memory: a
process that needs only some of the users holds only their part.
"""

import concurrent.futures
import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hlr_jax.files import checksum, read_json_object, replacing_folder

_log = logging.getLogger(__name__)


def folder_name(name: str, recipe: Mapping[str, Any]) -> str:
    """Return the folder's name for data that is prepared by `recipe`, a plain JSON object."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return f"{readable}-{digest[:24]}"


def save(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any]) -> None:
    """Write a .npy file for each array, and recipe.json for people to read; all files or none.

    If the disk does not allow it, a warning is logged and the run goes on.

    Args:
      folder: what to create, replacing what is there.
      arrays: by name.
      recipe: what the arrays depend on.
    """
    try:
        # What is there is damaged, or another process has just prepared the same data.
        with replacing_folder(folder) as unfinished:
            for name, array in arrays.items():
                np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
            checksums = {name: checksum(unfinished / f"{name}.npy") for name in arrays}
            for name, value in (("recipe", recipe), ("checksums", checksums)):
                text = json.dumps(value, indent=1, sort_keys=True)
                (unfinished / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("prepared data is not kept in %s: %s", folder.parent, error.strerror)


def restore(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Map the arrays of a folder into memory; None if it is missing or damaged.

    Checksums of all files are verified, whatever their size: 3 GB a second, measured on one core,
    from memory. What is not verified would be trained on for days.
    """
    if not folder.is_dir():
        return None
    try:
        checksums = read_json_object(folder / "checksums.json")
        files = {name: folder / f"{name}.npy" for name in checksums}
        # While a thread computes one, another may wait for the disk.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            for name, found in zip(files, threads.map(checksum, files.values()), strict=True):
                if found != checksums[name]:
                    raise ValueError(f"{name}.npy has changed")
        return {
            name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items()
        }
    except (OSError, ValueError, EOFError, RecursionError) as error:
        _log.warning("prepared data in %s is damaged (%s); preparing again", folder, error)
        return None

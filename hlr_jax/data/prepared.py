"""Prepared data kept on disk, so that the second run need not read and filter again.

A file is named by a hash of everything that decided its content, so it never goes stale; one
that cannot be read is as good as none.
"""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)


def file_name(name: str, recipe: Mapping[str, Any]) -> str:
    """The name, without extension, of what `recipe` makes; `recipe` must be plain JSON."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return f"{readable}-{digest[:24]}"


def save(path: pathlib.Path, arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any]) -> None:
    """Write `path`.npz and, for people to read, `path`.json; only whole files ever appear.

    Where the disk does not allow it, the run goes on without.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as temporary:
            unfinished = pathlib.Path(temporary)
            np.savez(unfinished / "arrays.npz", allow_pickle=False, **arrays)
            text = json.dumps(recipe, indent=1, sort_keys=True)
            (unfinished / "recipe.json").write_text(text + "\n", encoding="utf-8")
            os.replace(unfinished / "recipe.json", f"{path}.json")
            os.replace(unfinished / "arrays.npz", f"{path}.npz")
    except OSError as error:
        _log.warning("prepared data is not kept in %s: %s", path.parent, error)


def restore(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays of `path`.npz, or nothing where it is missing or damaged."""
    try:
        # Opened here, as a damaged archive would leave a file that NumPy opens unclosed.
        with open(f"{path}.npz", "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _log.warning("prepared data in %s.npz is damaged (%s); preparing again", path, error)
        return None

"""The folder for what can be had again: downloads, prepared data, compiled programs; its bounds."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterable

from hlr_jax.errors import InputError
from hlr_jax.files import remove

# What folders of compiled programs begin with, the one of prepared data, and what is remembered of
# the files that they were prepared from.
COMPILED, PREPARED, FINGERPRINTS = "compiled-", "prepared", "fingerprints.json"
# Megabytes that compiled programs may take, and prepared data as many again.
_LIMIT_MB = 10_000


def cache_folder() -> pathlib.Path:
    """Return the folder for downloads, prepared data and compiled programs."""
    if own := os.environ.get("HLR_JAX_CACHE"):
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(shared).expanduser() / "hlr_jax"


def cache_limit() -> int:
    """Return how many bytes compiled programs may take, and prepared data as many again.

    Raises:
      InputError: the environment variable HLR_JAX_CACHE_MB, which says so, is no number.
    """
    text = os.environ.get("HLR_JAX_CACHE_MB") or str(_LIMIT_MB)
    if not text.isdecimal():
        raise InputError(f"HLR_JAX_CACHE_MB={text}: use a number of megabytes, as {_LIMIT_MB}")
    return int(text) * 10**6


def disk_bytes(path: pathlib.Path) -> int:
    """Add up the lengths of a file, or of all files in a folder; 0 if there is neither."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


def mark_used(path: pathlib.Path) -> None:
    """Note that a file or folder of a cache was used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def keep_within(limit: int, entries: Iterable[pathlib.Path], spare_seconds: int = 0) -> None:
    """Remove entries of a cache, those used longest ago first, until the rest fit.

    Args:
      limit: bytes that may stay.
      entries: files and folders, whose time is that of the last use (`mark_used`).
      spare_seconds: what was used within them stays, even above the limit.
    """
    found = []
    for path in entries:
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, disk_bytes(path), path))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if total <= limit or used > time.time() - spare_seconds:
            return
        remove(path)
        total -= size

"""Tell files apart by their content, which is read once for each state of a file.

What is remembered of a file is its path, length, the times of its last change (of content, and of
anything), its number in the file system, and the SHA-256 of its content, in `fingerprints.json` in
the cache folder. Where one of them differs the content is read again (1.2 GB a second, measured on
one core); where none does, it is taken to be the same. The time of the last change of anything is
set by the system and by nobody else, so that a file of the same length whose modification time was
put back is noticed.

What is not noticed: changes that do not touch that time, as an administrator can make them (a clock
put back, writing to the disk beside the file system), or that another machine makes and a network
file system tells of late (NFS: up to a minute). A file that was changed within the last two seconds
is not remembered, since times of some file systems are no finer.
"""

import contextlib
import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hlr_jax.cache import FINGERPRINTS, cache_folder
from hlr_jax.errors import InputError
from hlr_jax.files import read_json_object, write_json

_SETTLED_SECONDS = 2
# Of which something is remembered, those seen last.
_MOST_FILES = 1000


class Fingerprint(NamedTuple):
    """Of a file.

    Attributes:
      status: what the file system says of it; the content is the same as long as this is.
      digest: SHA-256 of its content, in hexadecimal.
    """

    status: tuple[int, ...]
    digest: str


def fingerprints(paths: Iterable[pathlib.Path]) -> dict[pathlib.Path, Fingerprint]:
    """Find the fingerprints of files, reading those that have changed since they were last read.

    Raises:
      InputError: a file changes while it is read.
    """
    place = cache_folder() / FINGERPRINTS
    known = before = _remembered(place)
    found = {}
    for path in paths:
        name, status = os.fspath(path.resolve()), _status(path)
        found[path] = Fingerprint(status, _known_digest(known, name, status) or _digest(path))
        check_unchanged({path: found[path]})
        known = {key: value for key, value in known.items() if key != name}
        # Times of the system's clock, in nanoseconds.
        if time.time_ns() - max(status[1:3]) > _SETTLED_SECONDS * 10**9:
            known[name] = [*status, found[path].digest]
    if known != before:
        # Where that is not possible they are read again.
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, dict([*known.items()][-_MOST_FILES:]))
    return found


def check_unchanged(found: Mapping[pathlib.Path, Fingerprint]) -> None:
    """Raise InputError if a file has changed since its fingerprint was taken."""
    for path, fingerprint in found.items():
        if _status(path) != fingerprint.status:
            raise InputError(f"{path}: has changed while it was read; run again once it is whole")


def _status(path: pathlib.Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _remembered(place: pathlib.Path) -> dict[str, Any]:
    """Read what is remembered; nothing if that cannot be read: it can be had again."""
    try:
        return read_json_object(place)
    except InputError:
        return {}


def _known_digest(known: Mapping[str, Any], name: str, status: tuple[int, ...]) -> str:
    """Look up the digest of a file; "" if its content has to be read."""
    match known.get(name):
        case [*numbers, str(digest)] if tuple(numbers) == status:
            return digest
    return ""


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What makes files a checkpoint: a manifest, written last, that all of them are checked against."""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from hlr_jax.errors import InputError
from hlr_jax.files import checksum, flush, parse_json, write_json
from hlr_jax.files import remove as remove_files
from hlr_jax.training.store import Progress

VERSION = 1
_NAME = "manifest.json"


class DamagedError(Exception):
    """A checkpoint cannot be used. The message names its folder and says why."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint is, and what its files are.

    Attributes:
      progress: how far the run had come.
      rows: how many rows of each table stand for a user or an item.
      config: of the run, as `config.json` has it.
      data: the digest of the data set.
      best: the number of the checkpoint with the best parameters so far; 0 where there is none.
      best_checksum: of the manifest of that, so that no other one takes its place.
      files: size in bytes and CRC-32 of every file, by its path.
      version: of this description.
    """

    progress: Progress
    rows: Mapping[str, int]
    config: Mapping[str, Any]
    data: str
    best: int = 0
    best_checksum: int = 0
    files: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)
    version: int = VERSION

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"progress": self.progress._asdict()}

    @property
    def checksum(self) -> int:
        """The CRC-32 of all other fields, as JSON in a form of its own."""
        return _checksum_of(self.as_dict())


def write(folder: pathlib.Path, manifest: Manifest) -> Manifest:
    """Make the files of a folder a checkpoint, and return its manifest.

    All of them are read once more, by this process: those of other processes are on a file system
    that they share.
    """
    found = folder.rglob("*")
    paths = sorted(path for path in found if path.is_file() and path != folder / _NAME)
    for path in paths:
        flush(path)  # Orbax does so for some of them; a manifest counts on all.
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, checksum(path)] for path in paths
    }
    complete = dataclasses.replace(manifest, files=files)
    write_json(folder / _NAME, complete.as_dict() | {"checksum": complete.checksum})
    return complete


def read(folder: pathlib.Path) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises:
      DamagedError: there is none, or it is not as it was written.
      InputError: it is of a newer version of the library, or may not be read.
    """
    path = folder / _NAME
    try:
        values = parse_json(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{folder}: the checkpoint is not finished (no {_NAME})") from None
    except OSError as error:
        raise _unreadable(path, error, folder) from None
    except InputError:
        raise DamagedError(f"{folder}: the checkpoint is damaged ({_NAME} is no JSON)") from None
    if values.pop("checksum", None) != _checksum_of(values):
        raise DamagedError(f"{folder}: the checkpoint is damaged ({_NAME} has changed)")
    if values.get("version") != VERSION:
        raise InputError(
            f"{folder}: the checkpoint is of version {values.get('version')}, this library reads "
            f"version {VERSION}; use the version of the library that wrote it, or another --workdir"
        )
    try:
        progress = Progress(**values["progress"])
        progress = progress._replace(warnings=tuple(progress.warnings))
        return Manifest(**values | {"progress": progress})
    except (KeyError, TypeError):
        raise DamagedError(f"{folder}: the checkpoint is damaged ({_NAME} lacks fields)") from None


def whole(folder: pathlib.Path) -> Manifest:
    """Read the manifest of a checkpoint that has been verified before.

    Raises:
      InputError: it is not as it was any more.
    """
    try:
        return read(folder)
    except DamagedError as error:
        raise InputError(f"{error}; it was whole a moment ago: start again") from None


def remove(folder: pathlib.Path) -> None:
    """Delete a checkpoint, first of all what makes it one; the rest as far as possible.

    A network file system keeps files that a reader has open. What is left is not finished, and goes
    another time.
    """
    (folder / _NAME).unlink(missing_ok=True)
    remove_files(folder)


def verify(folder: pathlib.Path, manifest: Manifest) -> None:
    """Check that the files of a checkpoint are those that were written.

    Raises:
      DamagedError: one is not, or is missing.
      InputError: one may not be read.
    """
    for name, (size, crc) in manifest.files.items():
        path = folder / name
        try:
            is_same = path.stat().st_size == size and checksum(path) == crc
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise DamagedError(f"{folder}: the checkpoint is damaged ({name} is gone)") from None
        except OSError as error:
            raise _unreadable(path, error, folder) from None
        if not is_same:
            raise DamagedError(f"{folder}: the checkpoint is damaged ({name} has changed)")


def _unreadable(path: pathlib.Path, error: OSError, folder: pathlib.Path) -> InputError:
    # It may be whole: nothing is trained again because a disk is away for a moment.
    return InputError(
        f"{path}: cannot be read ({error.strerror}); make it readable, or delete {folder} to use "
        "the checkpoint before it"
    )


def _checksum_of(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())

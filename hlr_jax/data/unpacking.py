"""Unpack archives safely: plain files and folders, inside of one folder, of a bounded size."""

import lzma
import pathlib
import stat
import tarfile
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

# More than any data set of the catalogue, and less than would fill a disk.
MAX_BYTES = 4 * 2**30
MAX_MEMBERS = 10_000
# How much larger than itself an archive may unpack to, above SMALL_BYTES; tables of text take about
# a tenth compressed.
MAX_RATIO = 200
SMALL_BYTES = 64 * 2**20
CHUNK = 2**20

# What a damaged archive raises; encrypted ones raise RuntimeError, and bad names ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)


class FetchError(Exception):
    """A download that failed; the message says why."""


def limit_for(archive: pathlib.Path) -> int:
    """Return the most bytes that an archive may unpack to."""
    return min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * archive.stat().st_size))


def unpack(archive: pathlib.Path, folder: pathlib.Path, limit: int = MAX_BYTES) -> None:
    """Unpack a .zip or .tar archive (compressed or not) of plain files and folders.

    Args:
      archive: the file.
      folder: where its content goes.
      limit: the most bytes to unpack.

    Raises:
      FetchError: it is no such archive or damaged, has a link or a path that leads out of
        `folder`, or unpacks to more than `limit` bytes.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _unpack_zip(opened, folder, limit)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened_tar:
                _unpack_tar(opened_tar, folder, limit)
        else:
            raise FetchError("the file that came is neither a zip nor a tar archive")
    except _DAMAGE as error:
        raise FetchError(f"the archive cannot be unpacked ({reason(error)})") from error


def _unpack_zip(archive: zipfile.ZipFile, folder: pathlib.Path, limit: int) -> None:
    members = archive.infolist()
    _require_few(len(members))
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise FetchError(f"the archive holds {member.filename!r}, not a plain file")
        if member.is_dir():
            continue
        target = _inside(member.filename, folder)
        with archive.open(member) as content, _new_file(target, member.filename) as file:
            limit -= copy(_pieces(content), file, limit, "the archive unpacks to too much")


def _unpack_tar(archive: tarfile.TarFile, folder: pathlib.Path, limit: int) -> None:
    for number, member in enumerate(archive, 1):
        _require_few(number)
        if member.isdir():
            continue
        content = archive.extractfile(member) if member.isreg() else None
        if content is None:
            raise FetchError(f"the archive holds {member.name!r}, not a plain file")
        with content, _new_file(_inside(member.name, folder), member.name) as file:
            limit -= copy(_pieces(content), file, limit, "the archive unpacks to too much")


def _inside(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Return the path in `folder` for an archive's member, after creating its parent folder."""
    parts = pathlib.PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0"):
        raise FetchError(f"the archive holds {name!r}, a path that leads out of its folder")
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FetchError(f"the archive holds {name!r} below a file") from None
    return target


def _new_file(path: pathlib.Path, name: str) -> IO[bytes]:
    try:
        return open(path, "xb")
    except FileExistsError:
        raise FetchError(f"the archive holds {name!r} twice") from None


def copy(
    source: Iterable[bytes],
    target: IO[bytes],
    limit: int,
    complaint: str,
    report: Callable[[int], Any] = lambda _: None,
) -> int:
    """Copy to the end, and return the number of bytes.

    Raises:
      FetchError: there are more than `limit` bytes; `complaint` is the message.
    """
    done = 0
    for chunk in source:
        done += len(chunk)
        if done > limit:
            raise FetchError(complaint)
        target.write(chunk)
        report(len(chunk))
    return done


def _pieces(source: Any) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


def _require_few(members: int) -> None:
    if members > MAX_MEMBERS:
        raise FetchError(f"the archive holds more than {MAX_MEMBERS} files")


def reason(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason if isinstance(error.reason, BaseException) else error
    return " ".join(str(error).split()) or type(error).__name__

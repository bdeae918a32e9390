"""Download public data sets over https, verify their checksums, and unpack archives safely.

Nothing is unpacked before its checksum has been verified, and a folder gets its final name only
when all its files are complete.
"""

import contextlib
import hashlib
import http.client
import lzma
import os
import pathlib
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import IO, Any

from hlr_jax.data.registry import Download
from hlr_jax.progress import shown

TIMEOUT_SECONDS = 30.0
# More than any data set of the catalogue, and less than would fill a disk.
MAX_BYTES = 4 * 2**30
MAX_MEMBERS = 10_000
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

Opener = Callable[[str], Any]


class FetchError(Exception):
    """A download that failed; the message says why."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https addresses only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_https(url: str) -> Any:
    """Send a GET request; returns the response, a readable binary file with `headers`."""
    _require_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "hlr-jax"})
    return urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_SECONDS)


def fetch(
    downloads: Sequence[Download],
    folder: pathlib.Path,
    progress: bool = True,
    opener: Opener = open_https,
) -> None:
    """Download files into a folder, all of them or none.

    Args:
      downloads: what to get. Archives are unpacked; if an archive consists of one folder, the
        content of that folder is taken.
      folder: where the files go; created with its parents.
      progress: show a bar on standard error.
      opener: opens an address for reading.

    Raises:
      FetchError: the network or the disk failed, a checksum is wrong, or an archive cannot be
        unpacked; `folder` is left as it was.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            ready = pathlib.Path(temporary, "ready")
            ready.mkdir()
            for download in downloads:
                arrived = pathlib.Path(temporary, "arrived")
                download_file(download.url, arrived, progress, opener)
                verify(arrived, download.checksum)
                if download.file:
                    os.replace(arrived, ready / download.file)
                else:
                    unpack(arrived, ready)
            _put_in_place(_only_folder(ready), folder)
    except (OSError, http.client.HTTPException, EOFError) as error:
        raise FetchError(_reason(error)) from error


def download_file(
    url: str,
    path: pathlib.Path,
    progress: bool = True,
    opener: Opener = open_https,
    limit: int = MAX_BYTES,
) -> None:
    """Download one file.

    Args:
      url: its address.
      path: where to save it.
      progress: show a bar on standard error.
      opener: opens an address for reading.
      limit: the most bytes to accept.

    Raises:
      FetchError: the connection ended early, or there are more than `limit` bytes.
      OSError: the network or the disk failed.
    """
    with contextlib.closing(opener(url)) as response, open(path, "wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        name = url.rsplit("/", 1)[-1]
        with shown(total or 0, "B", name, show_progress=progress) as bar:
            # So that a log file tells of the quickest download.
            bar.note(**{"from": urllib.parse.urlsplit(url).netloc})
            done = _copy(response, file, limit, f"{name} is larger than {limit} bytes", bar.advance)
    if total is not None and done != total:
        raise FetchError(f"the connection ended after {done} of {total} bytes")


def verify(path: pathlib.Path, checksum: str) -> None:
    """Check that a file has the checksum `sha256:...`, `md5:...` or `git:...`.

    Raises:
      FetchError: it has another.
    """
    method, expected = checksum.split(":")
    if method == "git":
        # Git names a file's content by the SHA-1 hash of a short header and the content.
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.new(method, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise FetchError(
            f"the file that came is not the known one: its {method} checksum is "
            f"{digest.hexdigest()}, not {expected}"
        )


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
        raise FetchError(f"the archive cannot be unpacked ({_reason(error)})") from error


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
        with archive.open(member) as content, open(target, "xb") as file:
            limit -= _copy(content, file, limit, "the archive unpacks to too much")


def _unpack_tar(archive: tarfile.TarFile, folder: pathlib.Path, limit: int) -> None:
    for number, member in enumerate(archive, 1):
        _require_few(number)
        if member.isdir():
            continue
        content = archive.extractfile(member) if member.isreg() else None
        if content is None:
            raise FetchError(f"the archive holds {member.name!r}, not a plain file")
        with content, open(_inside(member.name, folder), "xb") as file:
            limit -= _copy(content, file, limit, "the archive unpacks to too much")


def _inside(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Return the path in `folder` for an archive's member, after creating its parent folder."""
    parts = pathlib.PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0"):
        raise FetchError(f"the archive holds {name!r}, a path that leads out of its folder")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(
    source: Any,
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
    while chunk := source.read(CHUNK):
        done += len(chunk)
        if done > limit:
            raise FetchError(complaint)
        target.write(chunk)
        report(len(chunk))
    return done


def _only_folder(folder: pathlib.Path) -> pathlib.Path:
    """Return the one folder that is all the content of `folder`, or else `folder` itself."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _put_in_place(ready: pathlib.Path, folder: pathlib.Path) -> None:
    # A new folder takes one rename. If the folder exists, because it is incomplete or because
    # another process has just created it, each entry is replaced by a rename of its own.
    try:
        os.rename(ready, folder)
        return
    except OSError:
        folder.mkdir(exist_ok=True)
    for entry in ready.iterdir():
        if entry.is_dir():
            shutil.rmtree(folder / entry.name, ignore_errors=True)
        os.replace(entry, folder / entry.name)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise FetchError(f"{url} is not an https address")


def _require_few(members: int) -> None:
    if members > MAX_MEMBERS:
        raise FetchError(f"the archive holds more than {MAX_MEMBERS} files")


def _reason(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason if isinstance(error.reason, BaseException) else error
    return " ".join(str(error).split()) or type(error).__name__

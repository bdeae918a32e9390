"""Download public data sets over https, verify their checksums, and unpack archives safely.

Nothing is unpacked before its checksum has been verified, and a folder gets its final name only
when all its files are complete. What has arrived of a file when the connection ends is kept beside
that folder, and the next try goes on behind it.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from hlr_jax import locks
from hlr_jax.data import unpacking
from hlr_jax.data.registry import Download
from hlr_jax.data.unpacking import CHUNK, MAX_BYTES, FetchError
from hlr_jax.progress import shown

TIMEOUT_SECONDS = 30.0
# A connection that brings less than so many bytes in so many seconds is given up.
STALL_BYTES = 64 * 2**10
STALL_SECONDS = 60.0
# How often a file is asked for, while connections end early.
TRIES = 3
_NO_SUCH_RANGE = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
_RANGE = re.compile(r"bytes (\d+)-")

Opener = Callable[..., Any]


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


def open_https(url: str, start: int = 0) -> Any:
    """Ask for a file, or for what is behind its first `start` bytes.

    Returns:
      The response, a readable binary file with `headers` and `status`.
    """
    _require_https(url)
    headers = {"User-Agent": "hlr-jax"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
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
                with _partial_file(download, folder.parent, pathlib.Path(temporary)) as arrived:
                    _download_verified(download, arrived, progress, opener)
                    if download.file:
                        os.replace(arrived, ready / download.file)
                    else:
                        try:
                            unpacking.unpack(arrived, ready, unpacking.limit_for(arrived))
                        finally:
                            arrived.unlink()
            _put_in_place(_only_folder(ready), folder)
    except (OSError, http.client.HTTPException, EOFError) as error:
        raise FetchError(unpacking.reason(error)) from error


@contextlib.contextmanager
def _partial_file(
    download: Download, folder: pathlib.Path, temporary: pathlib.Path
) -> Iterator[pathlib.Path]:
    """Name a file to download to, which may have a part already; what has arrived is kept.

    Its name stands for the address and the checksum, so that nothing else is ever put behind it.
    While another process writes there, or where files cannot be locked, it is a file of our own.
    """
    asked = f"{download.url} {download.checksum}".encode()
    name = f".{download.url.rsplit('/', 1)[-1]}-{hashlib.sha256(asked).hexdigest()[:16]}.part"
    path = folder / name
    with open(path, "ab") as locked:
        if not _locks(locked, path):
            yield temporary / "arrived"
            return
        try:
            yield path
        finally:
            # Nothing to go on from.
            if path.exists() and not path.stat().st_size:
                path.unlink()


def _locks(file: IO[bytes], path: pathlib.Path) -> bool:
    """Lock an open file, unless another process has it, or has moved it away meanwhile."""
    try:
        locks.flock(file.fileno())
        return locks.is_at(file.fileno(), path)
    except OSError:
        return False


def _download_verified(
    download: Download, path: pathlib.Path, progress: bool, opener: Opener
) -> None:
    """Download a file, or the rest of it, and verify its checksum.

    Connections that end early are opened again, as long as each brings something. A file in two
    parts may be of two versions: if it has another checksum, it is downloaded once more as a whole.

    Raises:
      FetchError: see `download_file` and `verify`; a file of another checksum is removed.
    """
    for tries_left in reversed(range(TRIES)):
        before = _size(path)
        try:
            download_file(download.url, path, progress, opener)
        except (FetchError, OSError, http.client.HTTPException):
            is_refused = _size(path) <= before
            if is_refused or not tries_left:
                raise
            continue
        try:
            verify(path, download.checksum)
            return
        except FetchError:
            path.unlink()
            if not before or not tries_left:
                raise


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def download_file(
    url: str,
    path: pathlib.Path,
    progress: bool = True,
    opener: Opener = open_https,
    limit: int = MAX_BYTES,
) -> None:
    """Download one file, or what is missing of it.

    Args:
      url: its address.
      path: where to save it. What is there already is the start of the file; if the server does
        not send parts, the whole file takes its place.
      progress: show a bar on standard error.
      opener: opens an address for reading, `opener(url)`; or from a byte on, `opener(url, start)`.
      limit: the most bytes to accept.

    Raises:
      FetchError: the connection ended early or became too slow, or there are more than `limit`
        bytes.
      OSError: the network or the disk failed.
    """
    start = _size(path)
    try:
        response = opener(url, start) if start else opener(url)
    except urllib.error.HTTPError as error:
        error.close()  # It is a response too.
        if error.code != _NO_SUCH_RANGE or not start:
            raise
        # There is more here than there.
        response = opener(url)
    with contextlib.closing(response):
        if not _begins_at(response, start):
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        name = url.rsplit("/", 1)[-1]
        with (
            open(path, "ab" if start else "wb") as file,
            shown(total or 0, "B", name, start, show_progress=progress) as bar,
        ):
            # So that a log file tells of the quickest download.
            bar.note(**{"from": urllib.parse.urlsplit(url).netloc})
            complaint = f"{name} is larger than {limit} bytes"
            try:
                pieces = _arriving(response)
                done = start + unpacking.copy(pieces, file, limit - start, complaint, bar.advance)
            except FetchError as error:
                if str(error) == complaint:
                    file.truncate(0)
                raise
    if total is not None and done != total:
        raise FetchError(f"the connection ended after {done} of {total} bytes")


def _begins_at(response: Any, start: int) -> bool:
    """Whether a response has a file from byte `start` on."""
    if not start or getattr(response, "status", 200) != http.HTTPStatus.PARTIAL_CONTENT:
        return False
    found = _RANGE.match(response.headers.get("Content-Range") or "")
    return found is not None and int(found[1]) == start


def _arriving(response: Any) -> Iterator[bytes]:
    """Yield what arrives.

    Raises:
      FetchError: it is too little for too long, though always in time for the socket.
    """
    since, arrived = time.monotonic(), 0
    while chunk := response.read1(CHUNK):
        yield chunk
        arrived += len(chunk)
        seconds = time.monotonic() - since
        if arrived >= STALL_BYTES:
            since, arrived = time.monotonic(), 0
        elif seconds > STALL_SECONDS:
            raise FetchError(f"only {arrived} bytes arrived in {seconds:.0f} seconds; try again")


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

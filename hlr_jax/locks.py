"""Who may write into a folder: one at a time."""

import contextlib
import errno
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from hlr_jax.errors import InputError
from hlr_jax.files import NOT_SUPPORTED, remove_unfinished

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep everybody else who asks for it from writing into a folder, which is made.

    The system gives the lock back however this process ends, also across machines where the file
    system carries `flock` (NFS and Lustre do); one without locks is warned of. What killed writers
    left unfinished in the folder, and in those in it, is removed first. Afterwards the file `.lock`
    is gone, and so is the folder if nothing was written.

    Raises:
      InputError: somebody else writes there, it cannot be written to, or it is a file.
    """
    if folder.is_file():
        raise InputError(f"--workdir={folder}: is a file; name a folder")
    path = folder / ".lock"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _acquired(path)
        except OSError as error:
            reason = error.strerror
            raise InputError(f"--workdir={folder}: cannot be written to ({reason})") from None
        try:
            for place in (folder, *filter(pathlib.Path.is_dir, folder.iterdir())):
                remove_unfinished(place)
            yield
        finally:
            # While it is held: nobody removes the file of somebody else. Where an open file cannot
            # be removed, it stays.
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(lock)
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()  # If it is empty.


def _acquired(path: pathlib.Path) -> int:
    """Open a file and lock it; the lock is held until the descriptor that is returned is closed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path)
            # Else its owner has removed it since it was opened.
            if is_at(descriptor, path):
                with contextlib.suppress(OSError):  # A full disk: locked it is.
                    os.truncate(path, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
                    about = f"{socket.gethostname()}, process {os.getpid()}, since {since}\n"
                    os.write(descriptor, about.encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def flock(descriptor: int) -> None:
    """Lock an open file until it is closed.

    Raises:
      BlockingIOError: somebody else has it.
      OSError: the system has no such locks (`files.NOT_SUPPORTED`), or refuses.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Tell whether an open file is the one of a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, path: pathlib.Path) -> None:
    """Lock an open file, or say who has."""
    try:
        flock(descriptor)
    except BlockingIOError:
        owner = os.read(descriptor, 500).decode(errors="replace").strip() or "it has just begun"
        raise InputError(
            f"--workdir={path.parent}: another run is writing there ({owner}); wait for it, or use "
            "another folder"
        ) from None
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        _log.warning(
            "%s: the file system has no locks (%s); see to it yourself that no other run writes "
            "there",
            path.parent,
            error.strerror,
        )

"""Keep compiled programs in a folder: whole, checked when they are read, and not too many.

JAX's own cache writes in place, never replaces what is there and knows no bound without a further
package: a program whose file is damaged is compiled again by every process that needs it.
"""

import contextlib
import hashlib
import inspect
import pathlib
from typing import Any

from absl import logging

from hlr_jax.cache import cache_limit, keep_within, mark_used
from hlr_jax.files import remove, remove_unfinished, replacing

_SUFFIX = ".program"
_DIGEST_BYTES = hashlib.sha256().digest_size


class CompiledPrograms:
    """Programs by the key that JAX gives them: the interface of JAX's caches.

    A file holds a SHA-256 of key and program, then the program, native code that must not be run
    if it is not what was written.
    """

    def __init__(self, folder: pathlib.Path, limit: int) -> None:
        """Keep programs in a folder that is there.

        Args:
          limit: bytes that all of them may take. Those used longest ago go first.
        """
        self._path = folder  # By the name that JAX looks for.
        self._limit = limit
        self._is_writable = True
        remove_unfinished(folder)

    def get(self, key: str) -> bytes | None:
        """Return the program of a key; None without one. A damaged one is removed."""
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest != _digest(key, program):
            logging.warning("%s: the compiled program is damaged; it is compiled again", file)
            remove(file)
            return None
        mark_used(file)
        return program

    def put(self, key: str, value: bytes) -> None:
        """Keep a program, in place of what is there, unless it is larger than all may be.

        Where the disk does not allow it a warning is logged, and nothing is kept any more.
        """
        if not self._is_writable or _DIGEST_BYTES + len(value) > self._limit:
            return
        try:
            with replacing(self._file(key)) as unfinished:
                unfinished.write_bytes(_digest(key, value) + value)
        except OSError as error:
            self._is_writable = False
            logging.warning("compiled programs are not kept in %s: %s", self._path, error.strerror)
        # Also those of earlier versions of this library, of JAX's own cache.
        with contextlib.suppress(OSError):
            keep_within(self._limit, [file for file in self._path.iterdir() if file.is_file()])

    def _file(self, key: str) -> pathlib.Path:
        return self._path / f"{key}{_SUFFIX}"


def _digest(key: str, program: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(program)
    return digest.digest()


def use_for(folder: pathlib.Path) -> bool:
    """Let JAX keep in a folder what it compiles by `CompiledPrograms`; call it before it compiles.

    Returns:
      False where JAX has no place for that any more, which is no public one (`get_file_cache`, the
      same in JAX 0.10.2 to 0.12.0): its own cache serves then.

    Raises:
      InputError: HLR_JAX_CACHE_MB is no number.
    """
    limit = cache_limit()
    try:
        from jax._src import compilation_cache

        module: Any = compilation_cache
        own = module.get_file_cache
        if list(inspect.signature(own).parameters) != ["path"]:
            return False
    except (ImportError, AttributeError):
        return False

    def get_file_cache(path: str) -> object:
        if path != str(folder):
            return own(path)
        return CompiledPrograms(folder, limit), path

    module.get_file_cache = get_file_cache
    return True

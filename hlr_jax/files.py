"""Files that a run writes, whole or not at all, and what the next start removes of others."""

import contextlib
import errno
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hlr_jax.errors import InputError

# Results of a million users, a value of each for ten metrics, are a tenth of this; parsed, it takes
# a few GB.
MAX_JSON_BYTES = 2**30
# What the library writes is nested 6 deep; Python's own limit is near 1000.
MAX_JSON_DEPTH = 64
_TOO_DEEP = f"nested deeper than {MAX_JSON_DEPTH}"
# Holds for whatever a run, a sweep or a comparison has written.
RESTORE = "the file is damaged: restore it, or start again in another folder"
# A log can be done without: a run goes on from its checkpoint.
_REPAIR = "repair or delete the file"
_ANY: Mapping[str, type] = MappingProxyType({})
_KINDS = {int: "a whole number", str: "a text", dict: "an object", list: "a list"}

# What another machine, or a process of unknown fate, began to write this long ago is abandoned.
_ABANDONED_SECONDS = 24 * 60 * 60
# .NAME.MACHINE-PROCESS-COUNT.tmp, or .old for what a new folder is about to replace.
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.(tmp|old)")
_count = itertools.count()
# How file systems say that they cannot do this.
NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to; it becomes `path` in one go, so that nobody ever reads half a file.

    Raises:
      OSError: the disk does not allow it; its `filename` is `path`.
    """
    unfinished = _beside(path)
    try:
        with _naming(path, unfinished):
            yield unfinished
            flush(unfinished)
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to write to; it becomes `folder`, in place of what is there, once it is whole.

    What is there steps aside for that moment, and comes back if the new one cannot take its place:
    at once, or by `remove_unfinished` where the process died in between. Files are not waited for
    until they are on the disk: prepared data have checksums, and others call `flush`.

    Raises:
      OSError: the disk does not allow it; its `filename` is `folder`.
    """
    unfinished, aside = _beside(folder), _beside(folder, "old")
    try:
        with _naming(folder, unfinished):
            unfinished.mkdir(parents=True)
            yield unfinished
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, aside)
            os.rename(unfinished, folder)
    finally:
        if aside.exists() and not folder.exists():
            os.rename(aside, folder)
        for path in (unfinished, aside):
            shutil.rmtree(path, ignore_errors=True)


def flush(path: pathlib.Path) -> None:
    """Wait until a file is on the disk.

    Without it a power cut may leave an empty file under its final name: a file system may write
    down the renaming before the content. And some, as NFS, only now say that the disk is full. It
    costs some milliseconds. That the renaming is on the disk too is not waited for: a power cut may
    bring the old file back, which is as whole as the new one.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: pathlib.Path, unfinished: pathlib.Path) -> Iterator[None]:
    """Let an error of the disk say which file it is about, by the name that people know."""
    try:
        yield
    except OSError as error:
        known = os.fspath(error.filename) if isinstance(error.filename, (str, os.PathLike)) else ""
        if known and not known.startswith(os.fspath(unfinished)):
            raise  # It is about another file.
        number, reason = error.errno or errno.EIO, error.strerror or str(error)
        # NumPy, and libraries in other languages, do not say what the system said.
        if not error.errno and not shutil.disk_usage(path.parent).free:
            number, reason = errno.ENOSPC, os.strerror(errno.ENOSPC)
        raise OSError(number, reason, os.fspath(path)) from error


def disk_fault(error: OSError) -> str:
    """Say which file an error of the system is about, and what it was."""
    if not (error.filename and error.strerror):
        return str(error)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{error.filename}: {error.strerror}" + is_full * "; make room and repeat the command"


def _beside(path: pathlib.Path, kind: str = "tmp") -> pathlib.Path:
    """Name what this process writes before it gets its name; see `_UNFINISHED`."""
    writer = f"{_machine()}-{os.getpid()}-{next(_count)}"
    return path.with_name(f".{path.name}.{writer}.{kind}")


@functools.cache
def _machine() -> str:
    """Name what numbers processes: a machine since it was switched on, or a container on it."""
    told = [socket.gethostname()]
    with contextlib.suppress(OSError):
        told.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text())
        told.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(told).encode()):08x}"


def remove_unfinished(folder: pathlib.Path) -> None:
    """Remove what writers that are dead left unfinished in a folder, if there is the folder.

    A process of this machine is asked for. Of one that lives (or its number does again), or is of
    another machine, only what is older than a day goes. Folders that stepped aside for one that
    never took their place get it back.
    """
    for path in folder.glob(".*.*-*-*.*"):
        found = _UNFINISHED.fullmatch(path.name)
        if found is None or not _is_abandoned(path, found["machine"], int(found["pid"])):
            continue
        replaced = path.with_name(found["name"])
        if path.suffix == ".old" and not replaced.exists():
            with contextlib.suppress(OSError):
                os.rename(path, replaced)
        else:
            remove(path)


def _is_abandoned(path: pathlib.Path, machine: str, process: int) -> bool:
    if machine == _machine() and os.name == "posix":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def remove(path: pathlib.Path) -> None:
    """Remove a file or a folder, as far as possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def parse_json(
    text: str | bytes, place: str, kind: type = dict, remedy: str = RESTORE, constants: bool = True
) -> Any:
    """Parse JSON that came from a disk; nothing else in the library does.

    Args:
      text: UTF-8.
      place: names the file, and the line where there are several, for error messages.
      kind: what it has to be: `dict` or `list`.
      remedy: ends the message of an error.
      constants: take NaN and Infinity, which are no JSON, but which Python writes.

    Raises:
      InputError: it is larger than `MAX_JSON_BYTES`, nested deeper than `MAX_JSON_DEPTH`, not valid
        or not of this kind, or an object has a key twice.
    """
    fault = ""
    if len(text) > MAX_JSON_BYTES:
        fault = f"larger than {MAX_JSON_BYTES} bytes"
    else:
        try:
            constant = float if constants else _refuse_constant
            value = json.loads(text, object_pairs_hook=_object, parse_constant=constant)
            if _is_deeper(text, value):
                fault = _TOO_DEEP
            elif not isinstance(value, kind):
                fault = f"not a JSON {'object' if kind is dict else 'list'}"
        except RecursionError:
            fault = _TOO_DEEP
        except ValueError as error:
            fault = f"not valid JSON ({' '.join(str(error).split())[:200]})"
    if fault:
        raise InputError(f"{place}: {fault}; {remedy}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated[:60]!r} is there twice")
    return made


def _is_deeper(text: str | bytes, value: Any) -> bool:
    """Whether lists and objects lie deeper in each other than `MAX_JSON_DEPTH`."""
    opening: tuple[Any, Any] = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) <= MAX_JSON_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [x.values() if isinstance(x, dict) else x for x in level]
        level = [x for values in inner for x in values if isinstance(x, dict | list)]
        if not level:
            return False
    return True


def read_json_object(
    path: pathlib.Path, fields: Mapping[str, type] = _ANY, remedy: str = RESTORE
) -> dict[str, Any]:
    """Read a JSON object.

    Args:
      fields: types of fields; one that is not there has none.
      remedy: ends the message where the content is wrong.

    Raises:
      InputError: the file cannot be read or holds something else, or a field is of another type.
    """
    value = parse_json(_content(path), str(path), dict, remedy)
    return _typed(value, str(path), fields, remedy)


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of epochs in a JSON-lines file, without an unfinished last line; none without it.

    Raises:
      InputError: a line is not a JSON object with a whole number `epoch`.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(_content(path).split(b"\n")[:-1], start=1):
        place = f"{path} line {number}"
        record = parse_json(line, place, dict, _REPAIR)
        if "epoch" not in record:
            raise InputError(f"{place}: has no number of an epoch; {_REPAIR}")
        records.append(_typed(record, place, {"epoch": int}, _REPAIR))
        if record["epoch"] < 1:
            raise InputError(f"{place}: epochs count from 1, not {record['epoch']}; {_REPAIR}")
    return records


def _content(path: pathlib.Path) -> bytes:
    """Read a file of JSON, but none that would fill the memory."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from None
    if len(content) > MAX_JSON_BYTES:
        raise InputError(f"{path}: larger than {MAX_JSON_BYTES} bytes; {RESTORE}")
    return content


def _typed(
    value: dict[str, Any], place: str, fields: Mapping[str, type], remedy: str = RESTORE
) -> dict[str, Any]:
    for name, kind in fields.items():
        # A truth is a number to Python.
        if name in value and type(value[name]) is not kind:
            shown = repr(value[name])[:60]
            raise InputError(f"{place}: {name} is {shown}, not {_KINDS[kind]}; {remedy}")
    return value


def write_json_lines(path: pathlib.Path, records: list[Any]) -> None:
    """Write one JSON record per line."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def append_json_line(path: pathlib.Path, record: Any) -> None:
    """Add a record to a JSON-lines file, or begin one.

    A process that dies meanwhile may leave an unfinished line, which `read_json_lines` leaves out.
    """
    with _naming(path, path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def checksum(path: pathlib.Path) -> int:
    """Compute the CRC-32 of a file, which is not read as a whole."""
    found = 0
    with open(path, "rb") as content:
        while part := content.read(2**24):
            found = zlib.crc32(part, found)
    return found

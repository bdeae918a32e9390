"""Where the library keeps files, and small files that a run writes, whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
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
_ANY: Mapping[str, type] = MappingProxyType({})
_KINDS = {int: "a whole number", str: "a text", dict: "an object", list: "a list"}


def cache_folder() -> pathlib.Path:
    """Return the folder for downloads and prepared data."""
    if own := os.environ.get("HLR_JAX_CACHE"):
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(shared).expanduser() / "hlr_jax"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to; it becomes `path` in one go, so that nobody ever reads half a file."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to write to; it becomes `folder` in one go, in place of what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as temporary:
        unfinished = pathlib.Path(temporary) / "unfinished"
        unfinished.mkdir()
        yield unfinished
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)


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


def read_json_object(path: pathlib.Path, fields: Mapping[str, type] = _ANY) -> dict[str, Any]:
    """Read a JSON object.

    Args:
      fields: types of fields; one that is not there has none.

    Raises:
      InputError: the file holds something else, or a field is of another type.
    """
    return _typed(parse_json(_content(path), str(path)), str(path), fields)


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
        record = parse_json(line, place)
        if "epoch" not in record:
            raise InputError(f"{place}: has no number of an epoch; {RESTORE}")
        records.append(_typed(record, place, {"epoch": int}))
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


def _typed(value: dict[str, Any], place: str, fields: Mapping[str, type]) -> dict[str, Any]:
    for name, kind in fields.items():
        # A truth is a number to Python.
        if name in value and type(value[name]) is not kind:
            shown = repr(value[name])[:60]
            raise InputError(f"{place}: {name} is {shown}, not {_KINDS[kind]}; {RESTORE}")
    return value


def write_json_lines(path: pathlib.Path, records: list[Any]) -> None:
    """Write one JSON record per line."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))

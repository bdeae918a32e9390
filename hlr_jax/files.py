"""Small files that a run writes, whole or not at all."""

import json
import os
import pathlib
import tempfile
from typing import Any

from hlr_jax.errors import InputError


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace a file in one go, so that nobody ever reads half of it."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=path.name, suffix=".tmp", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    # NamedTemporaryFile makes private files; a result has the permissions files have here.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(file.name, 0o666 & ~umask)
    os.replace(file.name, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Read JSON.

    Raises:
      InputError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); the file is damaged") from None


def read_json_lines(path: pathlib.Path) -> list[Any]:
    """The records of a JSON-lines file, without an unfinished last line; none without a file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def write_json_lines(path: pathlib.Path, records: list[Any]) -> None:
    """Write one JSON record per line."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))

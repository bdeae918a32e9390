"""One file with arrays and a description: what a model is saved as.

It is a safetensors file, so that reading it runs nothing, and other programs can read its tables.
Texts are stored as bytes. Nothing is compressed: tables of floats hardly shrink.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hlr_jax.errors import InputError
from hlr_jax.files import parse_json, replacing

# Raise it when what is written cannot be read by earlier versions of the library.
VERSION = 1
_FORMAT = "hlr_jax"
_SAVE_AGAIN = "the file is damaged; copy or save it again"
_TEXT, _ENDS = "#text", "#ends"


def write(path: pathlib.Path, description: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all.

    Args:
      description: plain JSON, whose `kind` says what the file is.
      arrays: numbers or texts by name.

    Raises:
      InputError: the file cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    texts = {}
    for name, array in arrays.items():
        values = np.asarray(array)
        if values.dtype.kind == "U":
            texts[name] = list(values.shape)
            encoded = [text.encode() for text in values.ravel().tolist()]
            tensors[name + _TEXT] = np.frombuffer(b"".join(encoded), np.uint8)
            tensors[name + _ENDS] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        else:
            tensors[name] = np.asarray(values, order="C")
    words = {"description": json.dumps(dict(description)), "texts": json.dumps(texts)}
    header = {
        "format": _FORMAT,
        "version": str(VERSION),
        **words,
        "sha256": _digest(tensors, words),
    }
    try:
        with replacing(path) as unfinished:
            # Its own `save_file` makes files that nobody else may read.
            unfinished.write_bytes(safetensors.numpy.save(tensors, header))
    except (OSError, safetensors.SafetensorError) as error:
        # Without the name of the unfinished file.
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason})") from None


def read(path: pathlib.Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the description and the arrays of a file.

    Raises:
      InputError: the file is missing, damaged, of a newer version or of another kind.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; give a file that was saved, or the folder of a run")
    fault = f"{path}: the file is damaged, or is no saved model; copy or save it again"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise InputError(f"{path}: was not saved by hlr_jax; give a file that was")
            if int(header["version"]) > VERSION:
                raise InputError(
                    f"{path}: was saved by a newer hlr_jax (version {header['version']} of the "
                    f"file; this one reads up to {VERSION}); update hlr_jax"
                )
            description = parse_json(header["description"], str(path), dict, _SAVE_AGAIN)
            if description["kind"] != kind:
                raise InputError(f"{path}: holds a {description['kind']}, not a {kind}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors, header) != header["sha256"]:
            raise InputError(fault)
        return description, _with_texts(
            tensors, parse_json(header["texts"], str(path), dict, _SAVE_AGAIN)
        )
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{fault} ({type(error).__name__})") from None


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take the arrays whose names begin with a prefix, and leave it out of these."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def damaged(path: pathlib.Path) -> InputError:
    """Make the error for a file whose content does not fit together."""
    return InputError(f"{path}: {_SAVE_AGAIN}")


def kind_of(path: pathlib.Path) -> str:
    """Read what a file holds; "" if it was not saved by `write`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return str(parse_json((file.metadata() or {})["description"], str(path))["kind"])
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError):
        return ""


def _with_texts(
    tensors: dict[str, np.ndarray], texts: Mapping[str, list[int]]
) -> dict[str, np.ndarray]:
    for name, shape in texts.items():
        content, ends = tensors.pop(name + _TEXT).tobytes(), tensors.pop(name + _ENDS).tolist()
        starts = [0, *ends][:-1]
        decoded = [content[a:b].decode() for a, b in zip(starts, ends, strict=True)]
        tensors[name] = np.array(decoded, np.str_).reshape(shape)
    return tensors


def _digest(tensors: Mapping[str, np.ndarray], words: Mapping[str, str]) -> str:
    sha = hashlib.sha256(f"{words['description']}\n{words['texts']}\n".encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()

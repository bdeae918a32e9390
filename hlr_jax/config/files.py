"""Configuration files: programs whose `get_config` returns a configuration.

A file that holds several has a mapping `CONFIGS` from their names to each `Config`, and its
`get_config` takes a name: `configs/embedded.py:hlr`.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from hlr_jax.config import dicts, execution, plugins, shipped
from hlr_jax.config.fields import Config
from hlr_jax.config.values import unknown
from hlr_jax.errors import InputError


def load(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Config:
    """Return a configuration that comes with the library, as `load("ml_100k/hlr")`, or a file's.

    Args:
      path: a name, or a file.
      changes: other values of fields, as `{"training.epochs": 5}`.

    Raises:
      InputError: there is none, or it is not valid.
    """
    values = read(os.fspath(path))
    for field, value in (changes or {}).items():
        section = field.rpartition(".")[0]
        try:
            values.update_from_flattened_dict({field: value})
        except KeyError:
            raise unknown("config", section or field, list(values)) from None
        except TypeError:
            expected = type(functools.reduce(getattr, field.split("."), values)).__name__
            fault = f"expected {expected}" if section else "name a field of it, as training.epochs"
            raise InputError(f"config.{field}={value!r}: {fault}") from None
    return dicts.from_config_dict(values)


def read(path: str, imports: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Run a configuration file and return what its `get_config` returns.

    Args:
      path: of the file, after a colon the argument of `get_config`; or, where there is no such
        file, a name that comes with the library.
      imports: modules that are imported before, and are added to `config.imports`.

    Raises:
      InputError: the file or the configuration of that name does not exist, or its program fails.
    """
    plugins.load(imports, plugins.FLAG)
    path = shipped.find(path)
    file, colon, argument = path.partition(":")
    module = execution.execute(file)
    names = execution.names_in(module)
    if names and argument not in names:
        fault = f"there is no {argument!r}" if argument else "name one of its configurations"
        raise InputError(
            f"--config={path}: {fault}; use {file}:NAME with one of {', '.join(names)}"
        )
    if not callable(getattr(module, "get_config", None)):
        raise InputError(f"--config={path}: the file defines no function get_config")
    try:
        values = module.get_config(*([argument] if colon else []))
    except Exception as error:
        raise InputError(f"--config={path}: {execution.fault(file, error)}") from error
    if not isinstance(values, ml_collections.ConfigDict):
        raise InputError(
            f"--config={path}: get_config returns {type(values).__name__}; return "
            "as_config_dict(Config(..))"
        )
    with values.unlocked():
        values.imports = tuple(dict.fromkeys([*values.get("imports", ()), *imports]))
    return values

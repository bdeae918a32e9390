"""Configuration files: programs whose `get_config` returns a configuration.

A file that holds several has a mapping `CONFIGS` from their names to each `Config`, and its
`get_config` takes a name: `configs/embedded.py:hlr`.
"""

import importlib.util
import pathlib
import re
import sys
import textwrap
import traceback
import types
from collections.abc import Mapping, Sequence

import ml_collections

from hlr_jax.config import build, dicts, plugins, renamed
from hlr_jax.config.fields import Config
from hlr_jax.errors import InputError


def load(path: str) -> Config:
    """Return the configuration of a file, as in `load("configs/published.py:ml_20m/hlr")`.

    Raises:
      InputError: there is none, or it is not valid.
    """
    return dicts.from_config_dict(read(path))


def read(path: str, imports: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Run a configuration file and return what its `get_config` returns.

    Args:
      path: of the file; after a colon the argument of `get_config`.
      imports: modules that are imported before, and are added to `config.imports`.

    Raises:
      InputError: the file or the configuration of that name does not exist, or its program fails.
    """
    file, colon, argument = path.partition(":")
    plugins.load(imports, plugins.FLAG)
    module = _module(file)
    names = names_in(module)
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
        raise InputError(f"--config={path}: {_fault(file, error)}") from error
    if not isinstance(values, ml_collections.ConfigDict):
        raise InputError(
            f"--config={path}: get_config returns {type(values).__name__}; return "
            "as_config_dict(Config(..))"
        )
    with values.unlocked():
        values.imports = tuple(dict.fromkeys([*values.get("imports", ()), *imports]))
    return values


def names_in(module: types.ModuleType) -> list[str]:
    """List the configurations that a file holds; none if its `get_config` takes no name."""
    return list(getattr(module, "CONFIGS", ()))


def available(folder: pathlib.Path) -> dict[pathlib.Path, list[str]]:
    """Find the configuration files of a folder, with the names of what each of them holds."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        try:
            found[file] = names_in(_module(str(file)))
        except InputError:  # Not to be used, so not to be listed.
            continue
    return found


def _module(file: str) -> types.ModuleType:
    if not pathlib.Path(file).is_file():
        raise InputError(f"--config={file}: there is no such file{_similar(file)}")
    spec = importlib.util.spec_from_file_location("hlr_jax_configuration", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={file}: name a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--config={file}: {_fault(file, error)}") from error
    return module


def _similar(file: str) -> str:
    """Say which configurations have the same words in their names, as `ml_1m/hlr.py` once had."""
    folder = next((path for path in pathlib.Path(file).parents if path.name == "configs"), None)
    if folder is None or not folder.is_dir():
        return "; see configs/"
    words = pathlib.Path(file).relative_to(folder).with_suffix("").parts
    # A name of several words begins a name, as ml_1m does not in ncf_ml_1m.
    start = "[/:]" if len(words) > 1 else "[/:_]"
    pattern = re.compile(start + r"(\.py)?[/:_]".join(map(re.escape, words)) + r"(\.py)?$")
    close = [path for path in _paths(available(folder)) if pattern.search(path)]
    return f"; did you mean {' or '.join(close)}?" if close else f"; see {folder}/"


def _paths(found: Mapping[pathlib.Path, Sequence[str]]) -> list[str]:
    return [
        f"{file}:{name}" if name else str(file)
        for file, names in found.items()
        for name in names or [""]
    ]


def _fault(file: str, error: Exception) -> str:
    """Say in one line why the program of a configuration failed, and where."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    place = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, InputError):
        return f"{place}{error}"
    keyword = r"(\w+)Config\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    match = re.match(keyword, str(error))
    if isinstance(error, TypeError) and match:
        return place + _unknown_keyword(match[1].lower(), match[2])
    return f"{place}{type(error).__name__}: {error}"


def _unknown_keyword(section: str, name: str) -> str:
    field = f"config.{section}.{name}"
    if new := renamed.explain(field):
        return new
    if section in build.NAME_FIELDS and name in build.all_options(section):
        cls = f"{section.capitalize()}Config"
        return f"{field}: is an option; write {cls}(.., options={{{name!r}: ..}})"
    return f"{field}: there is no such field"


def describe(folder: pathlib.Path) -> str:
    """List the configurations of a folder for people: a line for each file or group of names."""
    lines = []
    for file, names in available(folder).items():
        lines.append(f"  {file}:NAME, with a NAME of" if names else f"  {file}")
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(name.rpartition("/")[0], []).append(name)
        for group in groups.values():
            lines += textwrap.wrap(
                " ".join(group), 100, initial_indent="    ", subsequent_indent="    "
            )
    return "\n".join(lines)

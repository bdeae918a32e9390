"""Run the programs that configuration files are, and say in one line why one fails."""

import importlib.util
import pathlib
import sys
import traceback
import types

from hlr_jax.errors import InputError


def execute(file: str) -> types.ModuleType:
    """Run a configuration file, and return it as a module.

    Raises:
      InputError: it is no Python file, or its program fails.
    """
    spec = importlib.util.spec_from_file_location("hlr_jax_configuration", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={file}: name a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--config={file}: {fault(file, error)}") from error
    return module


def names_in(module: types.ModuleType) -> list[str]:
    """List the configurations that a file holds; none if its `get_config` takes no name."""
    return list(getattr(module, "CONFIGS", ()))


def available(folder: pathlib.Path) -> dict[pathlib.Path, list[str]]:
    """Find the configuration files of a folder, with the names of what each of them holds."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        try:
            found[file] = names_in(execute(str(file)))
        except InputError:  # Not to be used, so not to be listed.
            continue
    return found


def fault(file: str, error: Exception) -> str:
    """Say in one line why the program of a configuration failed, and where."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    place = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, InputError):
        return f"{place}{error}"
    return f"{place}{type(error).__name__}: {error}"

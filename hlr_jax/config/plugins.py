"""Import the packages and modules that register further components, each once."""

import importlib.util
import pathlib
import sys
from collections.abc import Sequence

from hlr_jax.errors import InputError

# How a launcher's user writes the name of a module.
FLAG = "--import={}"

# More than the name of a file may have.
_LONGEST = 250

# Modules that were imported; None stands for the entry points.
_loaded: set[str | None] = set()


def load(imports: Sequence[str] = (), asked_by: str = "imports=['{}']") -> None:
    """Import what registers components: installed entry points, and modules by name.

    Modules are found as Python finds them: in installed packages and on PYTHONPATH.

    Args:
      imports: as in `config.imports`.
      asked_by: how the user wrote the name of a module, which stands at {}; for errors.

    Raises:
      InputError: one cannot be imported, or registers a name that is taken.
    """
    for name in (None, *imports):
        if name in _loaded:
            continue
        if name is not None:
            shown = name if name.isprintable() else ascii(name)
            _check_can_be_found(name, asked_by.format(shown))
        # Marked before, because a module that is imported may itself ask for this.
        _loaded.add(name)
        # It imports JAX, which --help need not wait for.
        from hlr_jax import registry

        try:
            if name is None:
                registry.load_entry_points()
            else:
                registry.load_module(name, asked_by.format(name))
        except InputError:
            _loaded.discard(name)
            raise


def _check_can_be_found(name: str, asked_by: str) -> None:
    """Raise InputError if this is no name of a module, or there is none on Python's path."""
    parts = name.split(".")
    is_name = len(name) <= _LONGEST and all(part.isidentifier() for part in parts)
    if parts[-1] == "py" or not is_name:
        raise InputError(f"{asked_by}: give the name of a module, as my_module")
    package = parts[0]
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    # A program is searched for modules in its own folder, not in the current one.
    here = any(pathlib.Path(path).exists() for path in (f"{package}.py", package))
    remedy = "set PYTHONPATH=. to import it from this folder" if here else "install its package"
    also = "install its package" if here else "set PYTHONPATH to the folder that it is in"
    raise InputError(f"{asked_by}: there is no module {package!r}; {remedy}, or {also}")

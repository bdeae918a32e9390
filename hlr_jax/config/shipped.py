"""The configurations that come with the library, by name: `ml_100k/hlr`, `published/ml_20m/hlr`.

A name begins with the file or folder of `configs/` that it is in. Without that it is the one that
is recommended, of those for the same data and model.
"""

import difflib
import functools
import os
import pathlib
import textwrap

from hlr_jax.config import execution
from hlr_jax.errors import InputError

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
# Where a name without a beginning is looked for, in this order.
RECOMMENDED = ("full_catalog", "tuned", "published", "recent")


def find(path: str) -> str:
    """Return the file, after a colon the argument of its `get_config`, of a path or name.

    Raises:
      InputError: there is no such file, and none that comes with the library has this name.
    """
    if os.path.isfile(path.partition(":")[0]):
        return path
    found = _recommended() | full_names()
    if path not in found:
        shown = path if path.isprintable() else ascii(path)
        raise InputError(f"--config={shown}: there is no such file or name; {_remedy(path)}")
    return found[path]


@functools.cache
def full_names() -> dict[str, str]:
    """List all names, as `published/ml_20m/hlr`, with the file and argument of each."""
    found = execution.available(FOLDER)
    listed = {
        f"{file.stem}/{name}": f"{file}:{name}" for file, names in found.items() for name in names
    }
    # A file that holds one, as tuned/ml_1m_hlr.py, begins with the name of its data.
    data = {name.split("/")[1] for name in listed if name.count("/") == 2}
    for file in (file for file, names in found.items() if not names):
        begins = [name for name in data if file.stem.startswith(f"{name}_")]
        longest = max(begins, key=len, default="")
        model = file.stem.removeprefix(f"{longest}_")
        listed["/".join(filter(None, (file.parent.name, longest, model)))] = str(file)
    return listed


def _recommended() -> dict[str, str]:
    """List the names without a beginning."""
    found: dict[str, str] = {}
    for begin in RECOMMENDED:
        for name, path in full_names().items():
            if name.startswith(f"{begin}/"):
                found.setdefault(name.removeprefix(f"{begin}/"), path)
    return found


def _remedy(path: str) -> str:
    """Say which names were probably meant, also by a path such as `configs/embedded.py:hlr`."""
    name = path.rpartition("configs/")[2].replace(".py", "").replace(":", "/").strip("/")
    recommended = list(_recommended())
    names = [*recommended, *full_names()]
    meant = (
        [x for x in names if x.replace("/", "_") == name.replace("/", "_")]
        or [x for x in names if x.startswith(f"{name}/")]
        or [x for x in recommended if x.endswith(f"/{name}")]
        or difflib.get_close_matches(name, names, n=3, cutoff=0.8)
    )
    if not meant:
        return "hlr-jax train --help lists the names there are"
    return f"did you mean {meant[0]}?" if len(meant) == 1 else f"use one of {', '.join(meant)}"


def describe() -> str:
    """List the names for people: those of a data set, or of a file, together."""
    groups: dict[str, list[str]] = {}
    for name in full_names():
        group, _, last = name.rpartition("/")
        groups.setdefault(f"{group}/", []).append(last)
    width = 2 + max(map(len, groups))
    lines = []
    for group, lasts in groups.items():
        first, *more = textwrap.wrap(" ".join(lasts), 98 - width)
        lines += [f"  {group:<{width}}{first}", *(" " * (2 + width) + line for line in more)]
    return "\n".join(lines)

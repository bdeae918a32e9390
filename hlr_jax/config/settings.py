"""All settings of a run: their types, defaults and meanings, as `hlr-jax fields` shows them.

What a field means stands beside it in its source: in a comment above it or after it, or under
`Attributes:` in the text of its class.
"""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from hlr_jax.config import build
from hlr_jax.config.fields import ALONE, SECTIONS, Config
from hlr_jax.config.values import field_names


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a configuration, or an option that stands among the fields of a section."""

    name: str
    kind: str
    default: Any
    meaning: str

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} = {self.default!r}"


def of_config() -> list[Setting]:
    """List the fields beside the sections."""
    return _settings(Config, "", {name: getattr(Config, name) for name in ALONE})


def of_section(section: str) -> list[Setting]:
    """List the fields of a section, without options."""
    cls = SECTIONS[section]
    return _settings(cls, f"{section}.", {name: getattr(cls, name) for name in field_names(cls)})


def of_component(section: str, name: str) -> list[Setting]:
    """List the options of a registered class.

    Raises:
      InputError: there is no class of that name.
    """
    return _settings(build.registry(section).get(name), f"{section}.", build.options(section, name))


def of_dataclass(cls: type) -> list[Setting]:
    """List the fields of any dataclass, all of which have defaults."""
    fields = dataclasses.fields(cls)
    return _settings(cls, "", {field.name: field.default for field in fields})


def _settings(cls: type, section: str, defaults: Mapping[str, Any]) -> list[Setting]:
    # Components have no hints, but defaults of their fields' types.
    hints = {name: type(default) for name, default in defaults.items()}
    hints |= typing.get_type_hints(cls)
    texts = meanings(cls)
    return [
        Setting(section + name, _kind(hints[name]), default, texts.get(name, ""))
        for name, default in defaults.items()
    ]


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Sequence:
        return f"tuple of {typing.get_args(hint)[0].__name__}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def about(cls: type) -> str:
    """Return the text of a class, without its fields."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:")[0]


def meanings(cls: type) -> dict[str, str]:
    """Return the meaning of each field that a class, or a base of it, explains.

    Classes whose source cannot be read, as those of a session, explain what their text does.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        found |= _attributes(inspect.cleandoc(vars(owner).get("__doc__") or ""))
        found |= _comments(owner)
    return found


def _attributes(text: str) -> dict[str, str]:
    """Read the part `Attributes:` of a text, in Google's style."""
    listed = re.search(r"^Attributes:\n((?: +.*\n?)+)", text, re.MULTILINE)
    entries = re.split(r"^(?=\w)", textwrap.dedent(listed[1]), flags=re.MULTILINE) if listed else []
    split = [" ".join(entry.split()).partition(": ") for entry in entries]
    return {name: about for names, _, about in split for name in names.split(", ") if about}


@functools.cache  # Bases are those of many.
def _comments(cls: type) -> dict[str, str]:
    """Read the comments above the fields of a class, and after them on their lines."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    lines = source.splitlines()
    (body,) = ast.parse(source).body
    found = {}
    for node in getattr(body, "body", ()):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = lines[: node.lineno - 1]
            first = len(above)
            while first and above[first - 1].lstrip().startswith("#"):
                first -= 1
            # Columns are counted in bytes.
            end = lines[(node.end_lineno or node.lineno) - 1].encode()
            after = end[node.end_col_offset or len(end) :].decode()
            words = [line.strip().removeprefix("#").strip() for line in (*above[first:], after)]
            found[node.target.id] = " ".join(filter(None, words))
    return {name: about for name, about in found.items() if about}

"""Show a configuration as the Python that makes it, without fields that have their defaults."""

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

from hlr_jax.facts import WIDTH

# Stands for a space where a line may not be broken: within the text of a value.
_SPACE = "\0"
_INDENT = 4


def section(value: Any, before: str = "") -> str:
    """Write a section, in lines of `WIDTH` columns.

    Args:
      before: what stands before it on its first line, with the indentation of all lines.
    """
    name, parts = type(value).__name__, _arguments(value)
    text = f"{before}{name}({', '.join(parts)})"
    if len(text) >= WIDTH:
        margin = " " * (len(before) - len(before.lstrip()))
        inner = textwrap.wrap(
            ", ".join(parts),
            WIDTH,
            initial_indent=margin + " " * _INDENT,
            subsequent_indent=margin + " " * _INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = "\n".join([f"{before}{name}(", *inner, f"{margin})"])
    return text.replace(_SPACE, " ")


def config(value: Any) -> str:
    """Write a whole configuration: a section below the other."""
    lines = []
    for name, field in changed(value).items():
        before = f"{' ' * _INDENT}{name}="
        is_section = dataclasses.is_dataclass(field)
        lines.append(section(field, before) if is_section else f"{before}{field!r}")
    return "\n".join(["Config(", *(f"{line}," for line in lines), ")"])


def line(value: Any) -> str:
    """Write the fields of a section that were changed in one line, as `name='hlr', dim=32`."""
    return ", ".join(_arguments(value)).replace(_SPACE, " ")


def _arguments(value: Any) -> list[str]:
    return [f"{name}={_text(field)}" for name, field in changed(value).items()]


def changed(value: Any) -> dict[str, Any]:
    """Return the fields that have other values than by default; names in any case."""
    default = type(value)()

    def is_shown(name: str, field: Any) -> bool:
        names_something = name == "name" or hasattr(field, "name")
        return names_something or field != getattr(default, name)

    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: field for name, field in found.items() if is_shown(name, field)}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}:{_SPACE}{_text(v)}" for k, v in value.items()) + "}"
    return repr(value).replace(" ", _SPACE)

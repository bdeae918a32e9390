"""What a section of the configuration is: typed values, and clear errors for what they are not."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

from hlr_jax.errors import InputError


def unknown(path: str, name: str, known: list[str]) -> InputError:
    """The error for a field that does not exist, with what was perhaps meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
    return InputError(f"{path}.{name}: there is no such field; {hint}")


def require(condition: bool, field: str, value: Any, remedy: str) -> None:
    """Raises InputError, which names the field and says what to do, unless the condition holds."""
    if not condition:
        raise InputError(f"config.{field}={value!r}: {remedy}")


def require_one_of(value: str, allowed: tuple[str, ...], field: str) -> None:
    """`require` for one of a few names."""
    require(value in allowed, field, value, f"use one of {', '.join(allowed)}")


class Section:
    """A section of the configuration: its values get their types, then it is checked."""

    def __post_init__(self) -> None:
        section = type(self).__name__.removesuffix("Config").lower()
        hints = typing.get_type_hints(type(self))
        for name in field_names(self):
            value = typed(f"{section}.{name}", hints[name], getattr(self, name))
            object.__setattr__(self, name, value)  # frozen only from here on
        self.check()

    def check(self) -> None:
        """Raises InputError for values out of range."""
        raise NotImplementedError


def field_names(section: Any) -> list[str]:
    """The flat fields of a section or its class: all but a model's options."""
    return [field.name for field in dataclasses.fields(section) if field.name != "options"]


def typed(field: str, kind: Any, value: Any) -> Any:
    """The value as the field's type; an int goes for a float, and a list for a tuple."""
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if typing.get_origin(kind) is Sequence:
        items = value if isinstance(value, list | tuple) else (value,)
        return tuple(typed(field, typing.get_args(kind)[0], item) for item in items)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) not in allowed:
        names = " or ".join("nothing" if t is type(None) else t.__name__ for t in allowed)
        raise InputError(f"config.{field}={value!r}: expected {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"config.{field}={value!r}: expected a finite number")
    return value

"""What a section of the configuration is: typed values, and clear errors for wrong ones."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Self

from hlr_jax.config import renamed, shown
from hlr_jax.errors import InputError


def unknown(path: str, name: str, known: Sequence[str]) -> InputError:
    """Return the error for a field that does not exist: its new name, or the most similar one."""
    new = renamed.explain(f"{path}.{name}")
    if new:
        return InputError(new)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
    return InputError(f"{path}.{name}: there is no such field; {hint}")


def require(condition: bool, field: str, value: Any, remedy: str) -> None:
    """Raise InputError, which names the field and the remedy, unless the condition holds."""
    if not condition:
        raise InputError(f"config.{field}={value!r}: {remedy}")


def require_one_of(value: str, allowed: tuple[str, ...], field: str) -> None:
    """Raise InputError unless the value is one of the allowed names."""
    names = ", ".join(name or "''" for name in allowed)
    require(value in allowed, field, value, f"use one of {names}")


class Section:
    """A section of the configuration: values are converted to their fields' types and checked."""

    def __new__(cls, *values: Any, **named: Any) -> Self:
        """Refuse fields that there are none of, before `__init__` does in Python's words."""
        for name in named:
            if name not in cls.__dataclass_fields__:  # type: ignore[attr-defined]
                raise _no_field(cls, name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        section = section_name(type(self))
        hints = typing.get_type_hints(type(self))
        for name in field_names(self):
            value = getattr(self, name)
            renamed.check_value(f"{section}.{name}", value)
            # The dataclass is frozen, so its own __setattr__ refuses.
            object.__setattr__(self, name, typed(f"{section}.{name}", hints[name], value))
        self.check()

    def __repr__(self) -> str:
        return shown.section(self)

    def check(self) -> None:
        """Raise InputError for values out of range."""


def _no_field(cls: type, name: str) -> InputError:
    from hlr_jax.config import build  # Which is made of sections.

    section = section_name(cls)
    if section in build.NAME_FIELDS and name in build.all_options(section):
        remedy = f"write {cls.__name__}(.., options={{{name!r}: ..}})"
        return InputError(f"config.{section}.{name}: is an option; {remedy}")
    return unknown(f"config.{section}", name, field_names(cls))


def section_name(cls: type) -> str:
    """Return the name of a section in a configuration: `loss` for LossConfig."""
    return cls.__name__.removesuffix("Config").lower()


def field_names(section: Any) -> list[str]:
    """List the fields of a section or its class, without the options of a registered class."""
    return [field.name for field in dataclasses.fields(section) if field.name != "options"]


def typed(field: str, kind: Any, value: Any) -> Any:
    """Convert a value to the type of its field: an int to a float, a list to a tuple.

    A number of NumPy is as good as Python's.

    Raises:
      InputError: the value has another type, or is not finite.
    """
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if typing.get_origin(kind) is Sequence:
        items = value if isinstance(value, list | tuple) else (value,)
        return tuple(typed(field, typing.get_args(kind)[0], item) for item in items)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf  # Which is refused below, as everything that large.
    if type(value) not in allowed:
        names = " or ".join("nothing" if t is type(None) else t.__name__ for t in allowed)
        raise InputError(f"config.{field}={value!r}: expected {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"config.{field}={value!r}: expected a finite number")
    return value

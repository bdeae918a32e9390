"""What researchers add: relations, geometries, losses and samplers, found by name.

Each kind has a registry. A class is registered by a decorator; its options are its annotated
fields, and flags follow from these. Classes are also found in other packages: in those that declare
an entry point of the group `hlr_jax.plugins`, and in modules named by `--import`.
"""

import dataclasses
import importlib
import importlib.metadata
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import jax
from ml_collections import ConfigDict

from hlr_jax.errors import InputError

ENTRY_POINTS = "hlr_jax.plugins"

_T = TypeVar("_T", bound="Options")


def is_number(owner: type, field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field is a traced number: a `float` that `owner.static` does not name."""
    return field.type in (float, "float") and field.name not in getattr(owner, "static", ())


def register_pytree(cls: type, names: Sequence[str], make: Callable[..., Any]) -> None:
    """Let JAX trace the numbers among these fields and compile for the values of all others.

    So a different margin, rate or radius needs no new compilation.

    Args:
      make: builds an instance of the class from values of the fields, without checking them.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    numbers = [name for name in names if is_number(cls, fields[name])]
    others = [name for name in names if name not in numbers]
    # A component may hold another one, whose numbers are traced too.
    nested = [name for name in others if getattr(fields[name].default, "is_component", False)]
    children = numbers + nested
    static = [name for name in others if name not in nested]

    def flatten(x: Any) -> tuple[list[Any], tuple[Any, ...]]:
        traced = [getattr(x, name) for name in children]
        # A whole number is given where any number may be.
        traced = [float(value) if isinstance(value, int) else value for value in traced]
        return traced, tuple(getattr(x, name) for name in static)

    def unflatten(fixed: tuple[Any, ...], traced: Sequence[Any]) -> Any:
        values = dict(zip(static, fixed, strict=True)) | dict(zip(children, traced, strict=True))
        return make(cls, values)

    jax.tree_util.register_pytree_node(cls, flatten, unflatten)


def make_defaults_floats(cls: type) -> None:
    """Turn a default such as 1 of an option that is annotated `float` into 1.0."""
    for name, kind in vars(cls).get("__annotations__", {}).items():
        default = vars(cls).get(name)
        if kind in (float, "float") and type(default) is int:
            setattr(cls, name, float(default))


def check_annotations(cls: type, reserved: Sequence[str] = ()) -> None:
    """Raise InputError where an annotated field of a new class cannot be an option.

    Args:
      reserved: names of fields that the library sets itself.
    """
    for name, kind in vars(cls).get("__annotations__", {}).items():
        if typing.get_origin(kind) is ClassVar or kind is ClassVar or "ClassVar" in str(kind):
            continue
        if name in reserved:
            raise option_is_field(cls, name)
        if name not in vars(cls):
            raise InputError(f"{path_of(cls)}: give option {name!r} a default")
        default = vars(cls)[name]
        if type(default).__hash__ is None:
            raise InputError(
                f"{path_of(cls)}: option {name!r} has a {type(default).__name__} as its default; "
                "write a tuple"
            )


def option_is_field(cls: type, option: str) -> InputError:
    """Build the error for an option with the name of a field that its section has."""
    section = getattr(cls, "section", "")
    return InputError(
        f"{path_of(cls)}: option {option!r} is a field of config.{section} already; rename it"
    )


# What flags can be.
_KINDS = (bool, int, float, str, tuple)


def _check_option(cls: type, field: dataclasses.Field[Any]) -> None:
    """Raise InputError where a field of a class cannot be an option of a configuration."""
    name, default, kind = field.name, field.default, field.type
    if default is dataclasses.MISSING:
        raise InputError(f"{path_of(cls)}: give option {name!r} a default")
    named = {known.__name__: known for known in _KINDS}
    wanted = named.get(kind, kind) if isinstance(kind, str) else kind
    is_other = wanted in _KINDS and type(default) is not wanted
    if type(default) not in _KINDS or is_other or "None" in str(kind):
        raise InputError(
            f"{path_of(cls)}: annotate option {name!r} as bool, int, float, str or a tuple, with a "
            "default of that type; None is no default"
        )
    if hasattr(ConfigDict, name):
        raise InputError(f"{path_of(cls)}: option {name!r} cannot be a flag; rename it")


# What JAX raises where Python needs the value of an array within a program.
TRACING_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def explain_tracing(component: "Options", error: Exception) -> str:
    """Say what is wrong with a component that raises one of TRACING_ERRORS."""
    fields = dataclasses.fields(component)  # type: ignore[arg-type]
    numbers = [field.name for field in fields if is_number(type(component), field)]
    cause = f"({str(error).partition(chr(10))[0]})"
    if not numbers:
        return f"its arguments are arrays within a program {cause}; use jnp.where instead of if"
    return (
        f"options {', '.join(numbers)} are floats, so they are arrays within a program {cause}; "
        "use jnp.where instead of Python's if, or name in `static` what shapes the program"
    )


class Options:
    """What the components of all kinds share: their fields are options of a configuration.

    Attributes:
      section: of the configuration that the options stand in.
      static: names of `float` fields that shape the program, and are compiled in.
    """

    section: ClassVar[str]
    static: ClassVar[tuple[str, ...]] = ()
    is_component: ClassVar[bool] = True
    # For checkers at run time: within a program the `float` options are arrays.
    __no_type_check__: ClassVar[bool] = True

    def check(self) -> None:
        """Raise InputError for options out of range; see `require`."""

    def require(self, condition: bool, option: str, remedy: str) -> None:
        """Raise InputError, which names the option and the remedy, unless the condition holds."""
        if not condition:
            value = getattr(self, option)
            raise InputError(f"config.{self.section}.{option}={value!r}: {remedy}")


@typing.dataclass_transform(frozen_default=True)
class Component(Options):
    """Base of geometries, losses and samplers: a subclass is a frozen dataclass and a pytree."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_annotations(cls)
        make_defaults_floats(cls)
        made = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(made)]  # type: ignore[arg-type]
        register_pytree(cls, names, _unchecked)


def _unchecked(cls: type, values: Mapping[str, Any]) -> Any:
    made: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


# The registry of each section of the configuration, and the module that makes it.
_REGISTRIES: dict[str, "Registry[Any]"] = {}
_MODULES = {
    "model": "hlr_jax.models",
    "geometry": "hlr_jax.functional.geometry",
    "loss": "hlr_jax.functional.losses",
    "sampling": "hlr_jax.sampling.samplers",
}


class Registry(Generic[_T]):
    """The classes of one kind, by the names that a configuration gives them.

    Attributes:
      kind: as errors call it: relation, geometry, loss or sampler.
      field: of the configuration that holds the name, as `section.field`.
      fixed: fields of the classes that are no options.
    """

    def __init__(self, kind: str, field: str, fixed: Sequence[str] = ()) -> None:
        self.kind = kind
        self.field = field
        self.fixed = tuple(fixed)
        self._classes: dict[str, type[_T]] = {}
        _REGISTRIES[field.partition(".")[0]] = self

    def register(self, name: str | type) -> Callable[[type[_T]], type[_T]]:
        """Make a class known by a name: a class decorator.

        A class that is defined again, as by running a cell of a notebook again, replaces itself.

        Raises:
          InputError: the name is taken, or an option cannot be a flag or has another type than the
            same option of another class, with which it shares its flag.
        """
        chosen = _checked_name(name)

        def add(cls: type[_T]) -> type[_T]:
            other = self._classes.get(chosen)
            if other is not None and path_of(other) != path_of(cls):
                raise InputError(
                    f"{path_of(cls)}: a {self.kind} named {chosen!r} is registered already "
                    f"({path_of(other)}); choose another name"
                )
            self._check_options(chosen, cls)
            self._classes[chosen] = cls
            return cls

        return add

    def _check_options(self, name: str, cls: type[_T]) -> None:
        for field in self._fields(cls):
            _check_option(cls, field)
        others = [known for key, known in self._classes.items() if key != name]
        for option, default in self.options_of(cls).items():
            for other in others:
                kind = type(self.options_of(other).get(option, default))
                if kind is not type(default):
                    raise InputError(
                        f"{path_of(cls)}: option {option!r} is {_a(type(default))}, and that of "
                        f"{path_of(other)} is {_a(kind)}; rename it"
                    )

    def _fields(self, cls: type[_T]) -> list[dataclasses.Field[Any]]:
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return [field for field in fields if field.name not in self.fixed]

    def names(self) -> list[str]:
        """List the registered names."""
        return sorted(self._classes)

    def get(self, name: str) -> type[_T]:
        """Return the class registered by a name.

        Raises:
          InputError: there is none.
        """
        if name not in self._classes:
            raise InputError(
                f"config.{self.field}={name!r}: use one of {', '.join(self.names())}; or, for a "
                "class of your own, name its module by --import (imports=[...] in Python) and "
                f"decorate it with @register({name!r})"
            )
        return self._classes[name]

    def options_of(self, cls: type[_T]) -> dict[str, Any]:
        """List the options of a class with their defaults."""
        return {field.name: field.default for field in self._fields(cls)}

    def options(self, name: str) -> dict[str, Any]:
        """List the options of the class registered by a name, with their defaults."""
        return self.options_of(self.get(name))

    def all_options(self) -> dict[str, Any]:
        """List the options of all registered classes together, with their defaults."""
        classes = self._classes.values()
        return {key: value for cls in classes for key, value in self.options_of(cls).items()}

    def build(self, name: str, options: Mapping[str, Any], **fixed: Any) -> _T:
        """Build an instance with these options, the others at their defaults.

        Raises:
          InputError: unknown name or option, or a value out of range.
        """
        cls, known = self.get(name), self.options(name)
        for option in options:
            if option not in known:
                raise InputError(
                    f"config.{cls.section}.{option}: {self.kind} {name!r} has no such option; "
                    f"it has {', '.join(known) or 'none'}"
                )
        made = cls(**options, **fixed)
        made.check()
        return made


def find(section: str) -> "Registry[Any]":
    """Find the registry of a section, with what the library registers itself."""
    importlib.import_module(_MODULES[section])
    return _REGISTRIES[section]


def register(name: str | type) -> Callable[[type[_T]], type[_T]]:
    """Make a relation, geometry, loss or sampler known by a name: a class decorator.

    The name is then a value of `config.model.name`, `config.geometry.name`, `config.loss.name` or
    `config.sampling.negatives`, and the class's annotated fields are options of that section.

    Raises:
      InputError: the name is taken or missing, an option cannot be one or clashes with another
        class's, or this is no class of these kinds.
    """
    chosen = _checked_name(name)

    def add(cls: type[_T]) -> type[_T]:
        section = getattr(cls, "section", None)
        if section not in _REGISTRIES:
            raise InputError(
                f"{path_of(cls)}: cannot be registered as {chosen!r}; make it a subclass of "
                "Relation, Geometry, Loss or Sampler"
            )
        return _REGISTRIES[section].register(chosen)(cls)

    return add


def path_of(cls: type) -> str:
    """Return a class's full name, by which errors call it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def is_own(component: object) -> bool:
    """Tell whether a component, or its class, is the library's own, which its tests hold right."""
    cls = component if isinstance(component, type) else type(component)
    return cls.__module__.startswith("hlr_jax.")


def _checked_name(name: str | type) -> str:
    """Refuse `@register` without a name: it hands over the class, and would register nothing."""
    if isinstance(name, type):
        raise InputError(f"{path_of(name)}: write @register('my_name'), the name it is found by")
    return name


def _a(kind: type) -> str:
    return f"{'an' if kind is int else 'a'} {kind.__name__}"


def load_entry_points() -> None:
    """Import what installed packages register.

    Raises:
      InputError: one cannot be imported, or registers a name that is taken.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = f" (of package {point.dist.name})" if point.dist is not None else ""
        load_module(point.value.partition(":")[0], f"plugin {point.name}{package}")


def load_module(module: str, asked_by: str) -> None:
    """Import a module that registers classes.

    Args:
      asked_by: what names the module, as `--import=my_module`; errors begin with it.

    Raises:
      InputError: it cannot be imported, or registers a name that is taken.
    """
    try:
        importlib.import_module(module)
    except InputError as error:
        raise InputError(f"{asked_by}: {error}") from None
    except SystemExit as error:
        raise InputError(
            f"{asked_by}: ends the program while it is imported; guard that by "
            "`if __name__ == '__main__'`"
        ) from error
    except Exception as error:
        raise InputError(
            f"{asked_by}: cannot be imported ({type(error).__name__}: {error}); correct "
            "the module, or install what it needs"
        ) from error

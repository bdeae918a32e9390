"""Turn a configuration into plain values and absl flags, and back, validated."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging
from ml_collections import config_dict

from hlr_jax.config import build, plugins, renamed
from hlr_jax.config.fields import ALONE, SECTIONS, Config
from hlr_jax.config.values import field_names, unknown
from hlr_jax.errors import InputError


def as_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain values, options beside the name of their class.

    Options of other registered classes stand there too, at their defaults, so that
    `--config.model.name` or `--config.loss.name` can be changed on the command line.
    """
    plugins.load(config.imports)
    values = dataclasses.asdict(config)
    for section in build.NAME_FIELDS:
        fields = values[section]
        chosen = build.typed_options(section, fields.pop("options"))
        own = build.options(section, build.registered_name(section, getattr(config, section)))
        fields |= build.all_options(section) | own | chosen
    return values


def flat(config: Config) -> dict[str, Any]:
    """Return the values of all fields by name, `section.field`, with the options that are used."""
    plugins.load(config.imports)
    values = dataclasses.asdict(config)
    for section in build.NAME_FIELDS:
        name = build.registered_name(section, getattr(config, section))
        chosen = build.typed_options(section, values[section].pop("options"))
        values[section] |= build.options(section, name) | chosen
    return {name: values.pop(name) for name in ALONE} | {
        f"{section}.{name}": value
        for section, fields in values.items()
        for name, value in fields.items()
    }


def as_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Return the configuration for `ml_collections.config_flags`, as `get_config()` does."""
    values = as_dict(config)
    for name, cls in SECTIONS.items():
        values[name] = _with_placeholders(values[name], cls)
    return ml_collections.ConfigDict(values)


def section_config_dict(name: str, section: Any) -> ml_collections.ConfigDict:
    """Return one section alone, for a launcher that lets only that one be changed."""
    fields = _with_placeholders(dataclasses.asdict(section), type(section))
    return ml_collections.ConfigDict({name: fields})


def _with_placeholders(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """Replace None by a placeholder: ConfigDict must know the type of such a field."""
    hints = typing.get_type_hints(cls)

    def with_type(name: str, value: Any) -> Any:
        if value is not None:
            return value
        kind = next(t for t in typing.get_args(hints[name]) if t is not type(None))
        return config_dict.placeholder(kind)

    return {name: with_type(name, value) for name, value in values.items()}


def from_config_dict(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Return the validated configuration; the inverse of `as_config_dict` and `as_dict`.

    Modules named in `imports` are imported first. Options that only other registered classes have
    are left out; those among them that were changed from their default are named in the log.

    Raises:
      InputError: an unknown or renamed field, a value of the wrong type or out of range, or a
        module that cannot be imported.
    """
    renamed.check_fields(values)
    known = [*SECTIONS, *ALONE]
    for name in values:
        if name not in known:
            raise unknown("config", name, known)
    alone = {name: values[name] for name in ALONE if name in values}
    plugins.load(Config(**alone).imports)
    sections = {
        name: _section(name, cls, values[name]) for name, cls in SECTIONS.items() if name in values
    }
    config = Config(**alone, **sections)
    build.build_all(config)  # Which checks their options.
    return config


def _section(section: str, cls: type, values: Any) -> Any:
    if not isinstance(values, Mapping | ml_collections.ConfigDict):
        raise InputError(f"config.{section}={values!r}: expected a section with fields")
    known = field_names(cls)
    values = {k: v for k, v in values.items() if not renamed.is_idle(f"{section}.{k}", v)}
    chosen = {name: value for name, value in values.items() if name in known}
    others = {name: value for name, value in values.items() if name not in known}
    if section not in build.NAME_FIELDS:
        for name in others:
            raise unknown(f"config.{section}", name, known)
        return cls(**chosen)
    fields = cls(**chosen)
    options = _own_options(section, build.registered_name(section, fields), others)
    return dataclasses.replace(fields, options=options)


def _own_options(section: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that this registered class has, with their types."""
    known, own = build.all_options(section), build.options(section, name)
    for option in values:
        if option not in known:
            fields = [*field_names(SECTIONS[section]), *own]
            # An option of another class is no help, unless it is what was meant.
            close = difflib.get_close_matches(option, [*fields, *known], n=1)
            raise unknown(f"config.{section}", option, close or fields)
    chosen = build.typed_options(section, values)
    registry = build.registry(section)
    for option in [option for option in chosen if option not in own]:
        value = chosen.pop(option)
        # Classes may have different defaults for the same option.
        defaults = [registry.options(other).get(option) for other in registry.names()]
        if value not in defaults:
            logging.warning(
                "config.%s.%s=%r: %s %s does not use it",
                *(section, option, value, registry.kind, name),
            )
    return chosen

"""The configuration as plain values and as absl flags, and back, validated."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging
from ml_collections import config_dict

from hlr_jax.config.fields import Config, ModelConfig
from hlr_jax.config.values import field_names, typed, unknown
from hlr_jax.errors import InputError

_SECTIONS = {
    field.name: typing.cast(type, field.default_factory)
    for field in dataclasses.fields(Config)
    if field.default_factory is not dataclasses.MISSING
}


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain values, the model's options beside its name.

    Options of other models stand there too, at their defaults, so that
    `--config.model.name` can be changed on the command line.
    """
    from hlr_jax.models import relation as base

    values = dataclasses.asdict(config)
    options = values["model"].pop("options")
    own = base.options(base.get(config.model.name))
    values["model"] |= base.all_options() | own | options
    return values


def flat(config: Config) -> dict[str, Any]:
    """The values of all fields by name, `section.field`, of the model's own options too."""
    values = dataclasses.asdict(config)
    values["model"] |= values["model"].pop("options")
    return {"seed": values.pop("seed")} | {
        f"{section}.{name}": value
        for section, fields in values.items()
        for name, value in fields.items()
    }


def as_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The configuration for `ml_collections.config_flags`, to be returned by `get_config()`."""
    values = as_dict(config)
    for name, cls in _SECTIONS.items():
        values[name] = _with_placeholders(values[name], cls)
    return ml_collections.ConfigDict(values)


def section_config_dict(name: str, section: Any) -> ml_collections.ConfigDict:
    """One section alone, for a launcher that lets only that one be changed."""
    fields = _with_placeholders(dataclasses.asdict(section), type(section))
    return ml_collections.ConfigDict({name: fields})


def _with_placeholders(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """ConfigDict must know the type of a field that holds None yet."""
    hints = typing.get_type_hints(cls)

    def with_type(name: str, value: Any) -> Any:
        if value is not None:
            return value
        kind = next(t for t in typing.get_args(hints[name]) if t is not type(None))
        return config_dict.placeholder(kind)

    return {name: with_type(name, value) for name, value in values.items()}


def from_config_dict(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """The validated configuration; the inverse of `as_config_dict` and `as_dict`.

    Options that only other models have are left out, with a note in the log where
    one was changed from its default.

    Raises:
      InputError: an unknown field, a value of the wrong type, or one out of range.
    """
    known = [*_SECTIONS, "seed"]
    for name in values:
        if name not in known:
            raise unknown("config", name, known)
    sections = {
        name: _section(name, cls, values[name]) for name, cls in _SECTIONS.items() if name in values
    }
    config = Config(**sections)
    if "seed" in values:
        config = dataclasses.replace(config, seed=typed("seed", int, values["seed"]))
    return config


def _section(section: str, cls: type, values: Any) -> Any:
    if not isinstance(values, Mapping | ml_collections.ConfigDict):
        raise InputError(f"config.{section}={values!r}: expected a section with fields")
    known = field_names(cls)
    chosen, options = {}, {}
    for name, value in values.items():
        if name in known:
            chosen[name] = value
        elif section == "model":
            options[name] = value
        else:
            raise unknown(f"config.{section}", name, known)
    if section == "model":
        chosen["options"] = _own_options(chosen.get("name", ModelConfig.name), options, known)
    return cls(**chosen)


def _own_options(model: str, options: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Those of the options that this model has, typed."""
    from hlr_jax.models import relation as base

    defaults, own = base.all_options(), base.options(base.get(model))
    chosen = {}
    for name, value in options.items():
        if name not in defaults:
            raise unknown("config.model", name, [*known, *own])
        value = typed(f"model.{name}", type(defaults[name]), value)
        if name in own:
            chosen[name] = value
        elif value != defaults[name]:
            logging.warning("config.model.%s=%r: model %s does not use it", name, value, model)
    return chosen

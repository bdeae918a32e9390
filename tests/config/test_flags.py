"""Every field can be set by a flag."""

import dataclasses
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from hlr_jax import config as configs
from hlr_jax.config import Config

# Fields whose default stands for no value.
GIVEN = {"data.min_rating": 4.0, "data.core": 5, "data.item_core": 6}


def test_every_field_is_a_flag(monkeypatch):
    plain = configs.as_dict(Config())
    fields = {
        f"{section}.{name}": value
        for section, values in plain.items()
        if isinstance(values, dict)
        for name, value in values.items()
    } | {"seed": plain["seed"]}
    fields |= GIVEN
    argv = ["program", *(f"--config.{name}={value}" for name, value in fields.items())]
    monkeypatch.setattr(sys, "argv", argv)  # where overrides are looked for
    found = flags.FlagValues()
    given = config_flags.DEFINE_config_dict(
        "config", configs.as_config_dict(Config()), flag_values=found
    )
    found(argv)
    flat = configs.flat(configs.from_config_dict(given.value))
    assert {name: flat[name] for name in GIVEN} == GIVEN
    unchanged = configs.flat(configs.from_config_dict(configs.as_config_dict(Config())))
    assert {k: v for k, v in flat.items() if k not in GIVEN} == {
        k: v for k, v in unchanged.items() if k not in GIVEN
    }


def test_no_field_has_the_name_of_a_method_of_flags():
    names = {
        field.name
        for section in dataclasses.fields(Config)
        if section.default_factory is not dataclasses.MISSING
        for field in dataclasses.fields(section.default_factory)
    }
    assert not names & set(dir(ConfigDict()))

"""What a sweep varies: fields of the configuration, each with a range or a choice of values.

    optimizer.learning_rate=log:1e-4:3e-3    loss.margin=0.2:2.0
    sampling.num_negatives=int:1:20          model.dim=choice:32,64,100

A field that takes whole numbers only is given whole numbers, with or without `int:`. Options of
registered classes are varied like other fields, for trials whose class has them.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hlr_jax import config as configs
from hlr_jax.config import Config, build, renamed
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.runs import compatibility, experiment

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str | None


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if these are ints.

    Attributes:
      log: equal ratios are equally likely, instead of equal differences.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """Both ends, which are checked before a sweep begins."""
        return self.low, self.high

    def __str__(self) -> str:
        kind = "int:" if isinstance(self.low, int) and not self.log else ""
        return f"{'log:' if self.log else kind}{self.low}:{self.high}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def __str__(self) -> str:
        return "choice:" + ",".join(map(text_of, self.values))


# What is varied, by field (`section.field`).
Space = Mapping[str, Range | Choice]

# Fields that name a registered class.
NAMES = {f"{section}.{field}" for section, field in build.NAME_FIELDS.items()}


def text_of(value: Value) -> str:
    """Write a value as it stands in a spec."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def suggest(trial: "optuna.Trial", name: str, where: Range | Choice) -> Any:
    """Let Optuna choose a value for a trial."""
    if isinstance(where, Choice):
        return trial.suggest_categorical(name, where.values)
    if isinstance(where.low, int) and isinstance(where.high, int):
        return trial.suggest_int(name, where.low, where.high, log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


def suggest_all(trial: "optuna.Trial", space: Space, config: Config) -> dict[str, Value]:
    """Let Optuna choose a value of every varied field that the trial's classes use.

    Args:
      space: fields that name classes come first, as `specs.parse` sorts them.
      config: what is not varied.
    """
    found: dict[str, Value] = {}
    for field, values in space.items():
        if is_used(field, config, found):
            found[field] = suggest(trial, field, values)
    return found


def check(space: Space, config: Config, dataset: Dataset | None) -> None:
    """Raise InputError where a varied field would be ignored, or an end of its range is refused.

    Args:
      config: what is not varied.
      dataset: what all trials train on; None if that is varied too.
    """
    for field, values in space.items():
        flag = f"--vary={field}={values}"
        tried = [names for names in _named_classes(space) if is_used(field, config, names)]
        if not tried:
            raise InputError(f"{flag}: {_why_unused(field, config)}")
        for value in values.ends:
            for names in tried:
                try:
                    _check_run(with_values(config, {**names, field: value}), dataset)
                except InputError as error:
                    raise InputError(f"{flag}: {error}") from None


def is_used(field: str, config: Config, values: Mapping[str, Value]) -> bool:
    """Whether a field matters to the classes that these values, or else the configuration, name."""
    section, _, option = field.partition(".")
    if section not in build.NAME_FIELDS or option not in build.all_options(section):
        return True
    named = f"{section}.{build.NAME_FIELDS[section]}"
    name = values.get(named, build.registered_name(section, getattr(config, section)))
    # Unknown names are refused when a configuration is made of them.
    known = build.registry(section).names()
    return name not in known or option in build.options(section, str(name))


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """Return the configuration with other values of some fields, `section.field`.

    Raises:
      InputError: a value of the wrong type or out of range.
    """
    changed = configs.as_dict(config)
    for field, value in values.items():
        section, _, name = field.rpartition(".")
        (changed[section] if section else changed)[name] = value
    for section, name_field in build.NAME_FIELDS.items():
        fields, known = changed[section], build.all_options(section)
        renamed.check_value(f"{section}.{name_field}", fields[name_field])
        own = build.options(section, fields[name_field])
        given = {**getattr(config, section).options}
        given |= {n: fields[n] for n in own if f"{section}.{n}" in values}
        changed[section] = {n: v for n, v in fields.items() if n not in known}
        changed[section] |= {n: given.get(n, default) for n, default in own.items()}
    return experiment.with_absolute_paths(configs.from_config_dict(changed))


def _named_classes(space: Space) -> list[dict[str, Value]]:
    """List the combinations of classes that trials may have, of the fields in `NAMES` that vary."""
    names = [field for field in space if field in NAMES]
    combinations = itertools.product(*(space[field].ends for field in names))
    return [dict(zip(names, values, strict=True)) for values in combinations]


def _why_unused(field: str, config: Config) -> str:
    section, _, option = field.partition(".")
    registry = build.registry(section)
    users = [name for name in registry.names() if option in registry.options(name)]
    name = build.registered_name(section, getattr(config, section))
    do = "do" if len(users) > 1 else "does"
    return f"{registry.kind} {name} does not use {field}; {', '.join(users)} {do}"


def _check_run(config: Config, dataset: Dataset | None) -> None:
    """Raise InputError where a trial with this configuration would be refused."""
    compatibility.check_config(config)
    if dataset is not None:
        compatibility.check(config, build.build_model(config), dataset)

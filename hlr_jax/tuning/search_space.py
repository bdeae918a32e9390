"""What a sweep varies: fields of the configuration, each with a range or a choice of values.

    optimizer.learning_rate=log:1e-4:3e-3    loss.margin=0.2:2.0
    sampling.negatives=int:1:20              model.dim=choice:32,64,100

A field that takes whole numbers only is given whole numbers, with or without `int:`.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hlr_jax import config as configs
from hlr_jax import models
from hlr_jax.config import Config
from hlr_jax.data.datasets import Dataset
from hlr_jax.errors import InputError
from hlr_jax.models import relation as base
from hlr_jax.runs import experiment

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str | None

_FORMS = "field=low:high, field=log:low:high, field=int:low:high or field=choice:value,value"


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
        return self.values

    def __str__(self) -> str:
        return "choice:" + ",".join(map(_text, self.values))


def suggest(trial: "optuna.Trial", name: str, where: Range | Choice) -> Any:
    """A value that Optuna chooses for a trial."""
    if isinstance(where, Choice):
        return trial.suggest_categorical(name, where.values)
    if isinstance(where.low, int) and isinstance(where.high, int):
        return trial.suggest_int(name, where.low, where.high, log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


# What is varied, by field (`section.field`).
Space = Mapping[str, Range | Choice]


def parse(specs: Sequence[str]) -> Space:
    """The space that some `--vary` flags describe, the model first: its options depend on it.

    Raises:
      InputError: a spec that cannot be read, of a field that there is not or that cannot be
        varied, or twice of the same.
    """
    if not specs:
        raise InputError(f"--vary: name at least one field to vary, as {_FORMS}")
    kinds = _kinds()
    space: dict[str, Range | Choice] = {}
    for spec in specs:
        field, equals, values = spec.partition("=")
        if not equals:
            raise InputError(f"--vary={spec}: write {_FORMS}")
        if field not in kinds:
            close = difflib.get_close_matches(field, kinds, n=1)
            hint = f"did you mean {close[0]}?" if close else "see hlr_jax/config/fields.py"
            raise InputError(f"--vary={spec}: there is no field {field!r}; {hint}")
        if field == "training.select":
            raise InputError(f"--vary={spec}: what selects is --objective, the same for all trials")
        if field == "training.refit":
            raise InputError(
                f"--vary={spec}: no trial is trained anew; give --config.training.refit=True for "
                "the best one"
            )
        if not kinds[field]:
            raise InputError(f"--vary={spec}: {field} is a list; vary a field of single values")
        if field in space:
            raise InputError(f"--vary={spec}: {field} is varied twice; give one of these flags")
        try:
            space[field] = _parse_values(values, kinds[field])
        except ValueError as error:
            raise InputError(f"--vary={spec}: {error}") from None
    return dict(sorted(space.items(), key=lambda one: (one[0] != "model.name", one[0])))


def check(space: Space, config: Config, dataset: Dataset | None) -> None:
    """Raises InputError where a varied field would be ignored, or an end of it is refused.

    Args:
      config: what is not varied.
      dataset: what all trials train on; None if that is varied too.
    """
    for field, values in space.items():
        flag = f"--vary={field}={values}"
        name = field.removeprefix("model.")
        if name in base.all_options() and field.startswith("model."):
            users = [model for model in models.names() if name in base.options(base.get(model))]
            if not set(users) & set(_models(space, config)):
                raise InputError(
                    f"{flag}: model {config.model.name} does not use {field}; "
                    f"{', '.join(users)} {'do' if len(users) > 1 else 'does'}"
                )
        for value in values.ends:
            # An option is tried with a model that has it.
            for model in _models(space, config):
                if not is_used(field, model):
                    continue
                try:
                    end = with_values(config, {"model.name": model, field: value})
                    relation = models.build(end.model.name, end.model.dim, end.model.options)
                    if dataset is not None:
                        experiment.check(end, relation, dataset)
                except InputError as error:
                    raise InputError(f"{flag}: {error}") from None


def is_used(field: str, model: str) -> bool:
    """Whether a field matters to this model: whether it has the option, if it is one."""
    section, _, name = field.partition(".")
    if section != "model" or name not in base.all_options():
        return True
    return model not in models.names() or name in base.options(base.get(model))


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """The configuration with other values of some fields, `section.field`.

    Raises:
      InputError: a value of the wrong type or out of range.
    """
    changed = configs.as_dict(config)
    for field, value in values.items():
        section, _, name = field.rpartition(".")
        (changed[section] if section else changed)[name] = value
    model = changed["model"]
    changed["model"] = {n: v for n, v in model.items() if is_used(f"model.{n}", model["name"])}
    return experiment.with_absolute_paths(configs.from_config_dict(changed))


def _models(space: Space, config: Config) -> list[str]:
    """The models that trials may have."""
    choice = space.get("model.name")
    return [str(name) for name in choice.ends] if choice else [config.model.name]


def _kinds() -> dict[str, tuple[type, ...]]:
    """The types a field takes, of all fields; none for one that takes a list."""
    kinds: dict[str, tuple[type, ...]] = {}
    for section, cls in typing.get_type_hints(Config).items():
        if not dataclasses.is_dataclass(cls):
            kinds[section] = _types(cls)
            continue
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kinds[f"{section}.{field.name}"] = _types(hints[field.name])
    del kinds["model.options"]
    options = base.all_options().items()
    return kinds | {f"model.{name}": _types(type(default)) for name, default in options}


def _types(hint: Any) -> tuple[type, ...]:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(t for t in allowed if t in (bool, int, float, str, type(None)))


def _parse_values(text: str, kinds: tuple[type, ...]) -> Range | Choice:
    """Raises ValueError, with what would be right, where the text says no values of these types."""
    form, _, rest = text.partition(":")
    if form == "choice":
        values = tuple(_parse_value(part, kinds) for part in rest.split(","))
        if len(set(map(_text, values))) < max(2, len(values)):
            raise ValueError("choose between at least two values, each named once")
        return Choice(values)
    if not {int, float} & set(kinds):
        example = "true,false" if bool in kinds else "word,word"
        raise ValueError(f"it takes no numbers; write field=choice:{example}")
    numbers = (rest if form in ("log", "int") else text).split(":")
    if len(numbers) != 2:
        raise ValueError(f"write {_FORMS}")
    kind = (int,) if form == "int" or float not in kinds else (float,)
    low, high = (_parse_value(number, kind) for number in numbers)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if not low < high:
        raise ValueError("the lower end comes first, and the ends differ")
    if form == "log" and low <= 0:
        raise ValueError("a range that is searched by its logarithm begins above 0")
    return Range(low, high, log=form == "log")


def _parse_value(text: str, kinds: tuple[type, ...]) -> Value:
    words: dict[str, Value] = {}
    if bool in kinds:
        words |= {"true": True, "false": False}
    if type(None) in kinds:
        words |= {"none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        if kind in kinds:
            try:
                value = kind(text)
            except ValueError:
                continue
            if math.isfinite(value):
                return value
    if str in kinds:
        return text
    names = {int: "a whole number", float: "a number"}
    wanted = [names[float if float in kinds else int]] if {int, float} & set(kinds) else []
    raise ValueError(f"{text!r} is not {' or '.join([*wanted, *words])}")


def _text(value: Value) -> str:
    """A value as it stands in a spec."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)

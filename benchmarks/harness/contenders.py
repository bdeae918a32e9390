"""What a table of accuracies compares, as plain data, and the configurations that it stands for."""

import dataclasses
import hashlib
import json
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from hlr_jax.config import Config, as_dict, from_config_dict
from hlr_jax.errors import InputError

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its settings.

    Attributes:
      name: what tables call it.
      label: where its settings come from: `published` (with the model) or `tuned` (on validation),
        maybe with a size, as in `tuned-256`.
      settings: fields of the configuration, as in `{"loss.margin": 0.2}`.
      config: a file under `configs/` that these change, as in `ml_1m/hlr.py`; "" for the library's
        defaults.
      pretrained: the key of an earlier model of the protocol; the run of the same seed starts from
        its tables.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    config: str = ""
    pretrained: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}-{self.label}"


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline of `hlr_jax.baselines`: tuned with the first seed, and fitted with each.

    What is chosen on validation is then fitted on training and validation together.

    Attributes:
      name: of the baseline.
      trials: settings to try on validation.
      settings: hyperparameters that are given instead of tuned.
      is_random: whether a fit depends on the seed; else there is one run.
    """

    name: str
    trials: int = 20
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_random: bool = False

    label = "baseline"

    @property
    def key(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Reference:
    """Figures that others measured.

    Attributes:
      name: of the model and the program.
      values: metrics, as in `{"ndcg@10": 0.257}`.
      source: who published them, or how they were measured.
    """

    name: str
    values: Mapping[str, float]
    source: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Data, how they are split, and what is measured on them.

    Attributes:
      name: of the protocol and its files.
      about: where the data and their split come from, a sentence or more.
      settings: fields of the configuration that all models and baselines share.
      metrics: what the table shows; the first is the main one, which is tested.
      select: the metric on validation that baselines are tuned on.
      contenders: in the order in which they run and are shown.
      references: what others measured, shown below.
    """

    name: str
    about: str
    settings: Mapping[str, Any]
    metrics: Sequence[str]
    contenders: Sequence[Model | Baseline]
    select: str = "ndcg@10"
    references: Sequence[Reference] = ()

    def __post_init__(self) -> None:
        keys = [contender.key for contender in self.contenders]
        assert len(set(keys)) == len(keys), f"{self.name}: two contenders of one name and label"
        for number, contender in enumerate(self.contenders):
            if isinstance(contender, Model) and contender.pretrained:
                assert contender.pretrained in keys[:number], (
                    f"{contender.key}: pretrained by whom?"
                )

    def contender(self, key: str) -> Model | Baseline:
        return next(contender for contender in self.contenders if contender.key == key)

    def named(self, names: Sequence[str]) -> list[Model | Baseline]:
        """The contenders of these names or keys; all of them if there are none.

        Raises:
          InputError: there is no such contender.
        """
        for name in names:
            if not any(name in (c.name, c.key) for c in self.contenders):
                known = ", ".join(c.key for c in self.contenders)
                raise InputError(f"--contenders={name}: {self.name} has {known}")
        return [c for c in self.contenders if not names or {c.name, c.key} & set(names)]


def config_of(protocol: Protocol, contender: Model | Baseline, seed: int) -> Config:
    """The configuration of a run; of a baseline, `data`, `evaluation` and `seed` count.

    Raises:
      InputError: a setting is unknown, or its value cannot be used.
    """
    values, settings = as_dict(Config()), dict(protocol.settings)
    if isinstance(contender, Model):
        if contender.config:
            values = runpy.run_path(str(_CONFIGS / contender.config))["get_config"]().to_dict()
        settings |= contender.settings
    for field, value in settings.items():
        section, _, name = field.partition(".")
        if section not in values or not name:
            raise InputError(f"{contender.key}: {field!r} is not a setting; write section.field")
        values[section][name] = value
    return from_config_dict(values | {"seed": seed})


def settings_of(config: Config) -> dict[str, Any]:
    """All that differs from the defaults of the library and of the model, but the seed.

    So it stays as it is when the library gets another option.
    """
    from hlr_jax.models import relation as base

    changed = {"model.name": config.model.name}
    for section in dataclasses.fields(Config):
        if section.name == "seed":
            continue
        values = dataclasses.asdict(getattr(config, section.name))
        defaults = dataclasses.asdict(section.default_factory())  # type: ignore[misc]
        if section.name == "model":
            own = base.options(base.get(config.model.name))
            values, defaults = (part | part.pop("options") for part in (values, own | defaults))
        for name, value in values.items():
            if value != defaults.get(name):
                changed[f"{section.name}.{name}"] = value
    return changed


def described(protocol: Protocol, contender: Model | Baseline) -> dict[str, Any]:
    """All that decides the figures of a contender, but data and seed, as plain JSON."""
    settings = settings_of(config_of(protocol, contender, seed=0))
    if isinstance(contender, Baseline):
        del settings["model.name"]
        return {
            "baseline": contender.name,
            "hyperparameters": dict(contender.settings),
            "trials": 0 if contender.settings else contender.trials,
            "select": protocol.select,
            "settings": settings,
        }
    description: dict[str, Any] = {"settings": settings}
    if contender.pretrained:
        earlier = described(protocol, protocol.contender(contender.pretrained))
        description["pretrained"] = {"key": contender.pretrained, "hash": fingerprint(earlier)}
    return description


def fingerprint(description: Mapping[str, Any]) -> str:
    """A hash of what `described` returns, the same in whatever order it names things."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seeds_of(contender: Model | Baseline, seeds: Sequence[int]) -> Sequence[int]:
    """The seeds that a contender is run with."""
    once = isinstance(contender, Baseline) and not contender.is_random
    return seeds[:1] if once else seeds

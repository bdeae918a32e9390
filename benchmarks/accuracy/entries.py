"""Define what a table of accuracies compares, and the configurations that its entries stand for."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.output import ROOT
from hlr_jax import config as configs
from hlr_jax.config import (
    Config,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    SamplingConfig,
    build,
    files,
)
from hlr_jax.errors import InputError

_CONFIGS = ROOT / "configs"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its hyperparameters, which stand in a configuration.

    Attributes:
      name: of the model.
      label: where the hyperparameters come from: `published` (with the model) or `tuned` (on
        validation), maybe with a size, as in `tuned-256`.
      config: a configuration under `configs/`, as in `published.py:ml_1m/hlr`; its data, cutoffs
        and seed are those of the protocol instead, but it may keep the order of interactions.
      pretrained: the key of an earlier model of the protocol; the run of the same seed starts from
        its tables.
    """

    name: str
    label: str
    config: str
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


Entry = Model | Baseline


def full_catalog(data: str, *models: str) -> list[Model]:
    """List models with the settings of the user-batched full softmax that were chosen for data."""
    return [Model(name, "tuned-full", f"full_catalog.py:{data}/{name}") for name in models]


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
      config: a configuration under `configs/` whose data and cutoffs all entries share.
      settings: fields of `data` and `evaluation` that differ from it, as in `{"data.core": 5}`.
      metrics: what the table shows; the first is the main one, which is tested.
      entries: in the order in which they run and are shown.
      selection_metric: on validation, that baselines are tuned by, and epochs of models that are
        not chosen by their loss.
      references: what others measured, shown below.
    """

    name: str
    about: str
    config: str
    metrics: Sequence[str]
    entries: Sequence[Entry]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    selection_metric: str = "ndcg@10"
    references: Sequence[Reference] = ()

    def __post_init__(self) -> None:
        keys = [entry.key for entry in self.entries]
        assert len(set(keys)) == len(keys), f"{self.name}: two entries of one name and label"
        for number, entry in enumerate(self.entries):
            if isinstance(entry, Model) and entry.pretrained:
                assert entry.pretrained in keys[:number], f"{entry.key}: pretrained by whom?"

    def entry(self, key: str) -> Entry:
        """Return the entry with this key."""
        return next(entry for entry in self.entries if entry.key == key)

    def named(self, names: Sequence[str]) -> list[Entry]:
        """Return the entries of these names or keys; all of them if there are none.

        Raises:
          InputError: there is no such entry.
        """
        for name in names:
            if not any(name in (entry.name, entry.key) for entry in self.entries):
                known = ", ".join(entry.key for entry in self.entries)
                raise InputError(f"--entries={name}: {self.name} has {known}")
        return [e for e in self.entries if not names or {e.name, e.key} & set(names)]


def config_of(protocol: Protocol, entry: Entry, seed: int) -> Config:
    """Build the configuration of a run; of a baseline, `data`, `evaluation` and `seed` count.

    Raises:
      InputError: there is no such configuration, or a setting is unknown or cannot be used.
    """
    shared = _load(protocol.config)
    config = _load(entry.config) if isinstance(entry, Model) else Config()
    evaluation = dataclasses.replace(config.evaluation, cutoffs=shared.evaluation.cutoffs)
    data = dataclasses.replace(shared.data, keep_times=config.data.keep_times)
    config = dataclasses.replace(config, data=data, evaluation=evaluation, seed=seed)
    if config.training.selection_metric != "loss":
        # As the baselines are chosen: settings that serve several protocols name one metric.
        training = dataclasses.replace(config.training, selection_metric=protocol.selection_metric)
        config = dataclasses.replace(config, training=training)
    values = configs.as_dict(config)
    for field, value in protocol.settings.items():
        section, _, name = field.partition(".")
        if section not in ("data", "evaluation"):
            raise InputError(f"{protocol.name}: {field!r}: a protocol sets data and evaluation")
        values[section][name] = value
    return configs.from_config_dict(values)


@functools.cache
def _load(path: str) -> Config:
    return files.load(str(_CONFIGS / path))


def settings_of(config: Config) -> dict[str, Any]:
    """List all fields that differ from the defaults of the library, except for the seed.

    Options are compared with the defaults of their class. So the list stays as it is when the
    library gets another field or option.
    """
    names = {
        f"{section}.{field}": getattr(getattr(config, section), field)
        for section, field in build.NAME_FIELDS.items()
    }
    like = Config(
        model=ModelConfig(name=names["model.name"]),
        geometry=GeometryConfig(name=names["geometry.name"]),
        sampling=SamplingConfig(negatives=names["sampling.negatives"]),
        loss=LossConfig(name=names["loss.name"]),
        imports=config.imports,
    )
    defaults, library = configs.flat(like), configs.flat(Config())
    defaults |= {name: library[name] for name in names} | {"imports": ()}
    changed = {
        name: value
        for name, value in configs.flat(config).items()
        if value != defaults[name] and name != "seed"
    }
    return {"model.name": config.model.name} | changed


def described(protocol: Protocol, entry: Entry) -> dict[str, Any]:
    """Describe what decides the figures of an entry, except for data and seed, as plain JSON."""
    settings = settings_of(config_of(protocol, entry, seed=0))
    if isinstance(entry, Baseline):
        del settings["model.name"]
        return {
            "baseline": entry.name,
            "hyperparameters": dict(entry.settings),
            "trials": 0 if entry.settings else entry.trials,
            "selection_metric": protocol.selection_metric,
            "settings": settings,
        }
    description: dict[str, Any] = {"settings": settings}
    if entry.pretrained:
        earlier = described(protocol, protocol.entry(entry.pretrained))
        description["pretrained"] = {"key": entry.pretrained, "hash": fingerprint(earlier)}
    return description


def fingerprint(description: Mapping[str, Any]) -> str:
    """Hash what `described` returns; the order of its names does not matter."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seeds_of(entry: Entry, seeds: Sequence[int]) -> Sequence[int]:
    """Choose the seeds that an entry is run with: the first if it does not depend on the seed."""
    once = isinstance(entry, Baseline) and not entry.is_random
    return seeds[:1] if once else seeds

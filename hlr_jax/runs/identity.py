"""What a run is of: only with the same configuration and data is it gone on with."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.errors import InputError

# Fields a run may be resumed with other values of, because they change neither a step nor the
# choice of the best epoch; see `_may_change`.
_CHANGEABLE = (
    "training.epochs",
    "training.patience",
    "training.checkpoint_minutes",
    "training.on_nonfinite",
    "training.rollbacks",
    "model.implementation",
    "evaluation.",
    "sharding.",
    # Where the data are; that they are the same their digest says.
    "data.path",
    "data.features",
    "data.predefined",
)
# Fields that do not matter any more once a model is trained: its data are known by their digest.
_OF_TRAINING = ("training.", "optimizer.", "data.", "imports")


class Identity(NamedTuple):
    """What is stored with a checkpoint, to be compared by whoever goes on from it.

    Attributes:
      config: the configuration as `config.json` has it; what is empty is compared with nothing.
      data: the digest of the data set, or nothing.
    """

    config: Mapping[str, Any] = {}
    data: str = ""

    @classmethod
    def of(cls, config: Config, data: str) -> "Identity":
        """Describe a run."""
        return cls(configs.as_dict(config), data)


OF_ANY = Identity()


def check_same_run(workdir: pathlib.Path, config: Config, stored: Config) -> None:
    """Raise InputError if a run of one configuration cannot go on with another."""
    if differing := _differences(config, stored):
        raise InputError(
            f"--workdir={workdir} holds a run with {differing[0]}; use another folder, or the same "
            "configuration to resume it"
        )


def check_same_model(workdir: pathlib.Path, config: Config, stored: Config) -> None:
    """Raise InputError if a model of one configuration is none of another."""
    differing = [x for x in _differences(config, stored) if not x.field.startswith(_OF_TRAINING)]
    if differing:
        path = workdir / "config.json"
        raise InputError(
            f"{path}: the model was trained with {differing[0]}; correct that, or delete the file: "
            "the same training command writes it again"
        )


class _Difference(NamedTuple):
    """A field that two configurations have other values of."""

    field: str
    new: Any
    old: Any

    def __str__(self) -> str:
        return f"config.{self.field}={self.old!r}, not {self.new!r}"


def _differences(config: Config, stored: Config) -> list[_Difference]:
    """List what keeps a run from being gone on with, the name of the model first."""
    # With the options that were left out at their defaults, as in a file.
    complete = configs.from_config_dict(configs.as_dict(config))
    new, old = configs.flat(complete), configs.flat(stored)
    order = sorted(new.keys() | old.keys(), key=lambda field: (field != "model.name", field))
    return [
        _Difference(field, new.get(field), old.get(field))
        for field in order
        if new.get(field) != old.get(field) and not _may_change(field, config)
    ]


def _may_change(field: str, config: Config) -> bool:
    if field == "training.epochs":
        # A cosine schedule may be stretched over all epochs.
        return config.optimizer.schedule != "cosine" or config.optimizer.schedule_epochs > 0
    if field == "evaluation.history_length":
        return config.training.selection_metric == "loss"
    return field.startswith(_CHANGEABLE)

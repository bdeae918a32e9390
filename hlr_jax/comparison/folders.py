"""Open what is to be compared: folders of training runs and of baselines."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hlr_jax import baselines
from hlr_jax import config as configs
from hlr_jax.config import Config, DataConfig, EvaluationConfig, build
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.files import read_json_object
from hlr_jax.runs.diagnosis import Diagnosis, NoDiagnosisError, diagnose
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.workdir import check_finished, load_config, stored_data

# Fields that change no parameter and no ranking; metrics and cutoffs are those of the comparison.
_INDIFFERENT = (
    "seed",
    "sharding.",
    "model.implementation",
    "training.checkpoint_minutes",
    "evaluation.cutoffs",
    "evaluation.cohort",
    "evaluation.bootstrap",
    "evaluation.per_user",
    "evaluation.batch_size",
)
_SECTIONS = ("train", "valid", "test", "digests", "split_sizes", "hyperparameters", "data")
_TYPES = dict.fromkeys(_SECTIONS, dict) | {"baseline": str, "seed": int}
_NEEDED = ("data", "seed", "split_sizes", "hyperparameters", "refit", "test")


class Plan(NamedTuple):
    """How everything is measured.

    Attributes:
      split: `valid` or `test`.
      protocol: `full` or `sampled`.
      metrics: names with cutoffs.
      refitted: on test, measure the models that were trained on validation too.
    """

    split: str
    protocol: str
    metrics: Sequence[str]
    refitted: bool

    @property
    def cutoffs(self) -> tuple[int, ...]:
        return tuple(sorted({metrics.parse(metric)[1] for metric in self.metrics}))

    @property
    def takes_refit(self) -> bool:
        """Whether a refitted model is to be measured: never on what it was trained on."""
        return self.refitted and self.split == "test"

    def takes_last(self, refit: bool) -> bool:
        """Whether this measures the model, of the two with a refit, that was trained last."""
        return self.takes_refit or not refit

    def is_as_stored(self, refit: bool) -> bool:
        """Whether this measures the model that a run's results of the split are of."""
        return self.split == "valid" or self.takes_last(refit)

    def changes(self) -> dict[str, Any]:
        """The fields of `config.evaluation` that are set."""
        return {
            "cutoffs": self.cutoffs,
            "protocol": self.protocol,
            "bootstrap": 0,
            "cohorts": 0,
            "per_user": True,
        }


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A folder that training wrote.

    Attributes:
      results: what it measured; empty where it was trained in Python, or further since.
    """

    folder: pathlib.Path
    config: Config
    results: Mapping[str, Any]

    kind: ClassVar[str] = "run"

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def label(self) -> str:
        """What was trained."""
        return self.config.model.name

    @property
    def data(self) -> DataConfig:
        """The data, before validation was joined to training."""
        return dataclasses.replace(self.config.data, join_valid=False)

    def load_data(self) -> Dataset:
        """Load the data as the folder keeps them, before validation was joined to training."""
        if self.config.data.join_valid:
            return loading.load(self.data)
        return stored_data(self.folder, self.config)

    @property
    def protocol(self) -> str:
        return self.config.evaluation.protocol

    @property
    def configuration(self) -> str:
        """The same text for runs that differ in nothing but the seed."""
        fields = {
            name: value
            for name, value in configs.flat(self.config).items()
            if not name.startswith(_INDIFFERENT)
        }
        # Tables of another run stand for how that one was trained, whatever its seed.
        start = pathlib.Path(self.config.training.pretrained)
        if (start / "config.json").is_file():
            fields["training.pretrained"] = TrainedRun(start, load_config(start), {}).configuration
        return json.dumps(fields, sort_keys=True, default=str)

    def is_refit(self, plan: Plan) -> bool:
        """Whether what is measured was trained on validation too."""
        refit = self.config.training.refit and plan.takes_refit
        return refit or self.config.data.join_valid

    def measure(self, dataset: Dataset, plan: Plan) -> dict[str, np.ndarray]:
        """Compute `[users]` values by metric, NaN where a metric leaves a user out.

        Raises:
          InputError: it was trained on other data, or its model cannot be loaded.
        """
        stored = _stored_values(self.results, self._trained_on(dataset), plan)
        if stored and plan.is_as_stored(self.config.training.refit):
            return stored
        loaded = self._load(dataset, plan)
        measured = loaded.with_evaluation(**plan.changes()).evaluate(plan.split)
        return _as_arrays(measured["per_user"], plan)

    def diagnoses(self, dataset: Dataset, plan: Plan) -> list[Diagnosis]:
        """Say what the relation of the model that is measured is, if it can be said."""
        if not build.build_model(self.config).has_relation:
            return []
        stored, digests = self.results.get("diagnosis"), self.results.get("digests")
        is_of_this = plan.takes_last(self.config.training.refit)
        if stored and is_of_this and digests == self._trained_on(dataset).digests:
            return [Diagnosis.from_dict(stored)]
        try:
            return [diagnose(self._load(dataset, plan))]
        except NoDiagnosisError:
            return []

    def _load(self, dataset: Dataset, plan: Plan) -> Recommender:
        trained_on = self._trained_on(dataset)
        return Recommender.load(self.folder, trained_on, refitted=plan.takes_refit)

    def _trained_on(self, dataset: Dataset) -> Dataset:
        return dataset.joined() if self.config.data.join_valid else dataset


@dataclasses.dataclass(frozen=True)
class TunedBaseline:
    """A folder that `hlr-jax baseline` wrote; the baseline is fitted again to be measured."""

    folder: pathlib.Path
    results: Mapping[str, Any]

    kind: ClassVar[str] = "baseline"

    @property
    def seed(self) -> int:
        return int(self.results["seed"])

    @property
    def label(self) -> str:
        return str(self.results["baseline"])

    @property
    def data(self) -> DataConfig:
        return dataclasses.replace(self._data, join_valid=False)

    @property
    def _data(self) -> DataConfig:
        try:
            return configs.from_config_dict({"data": self.results["data"]}).data
        except InputError as error:
            raise InputError(f"{self.folder / 'results.json'}: {error}") from None

    def load_data(self) -> Dataset:
        """Load the data, before validation was joined to training."""
        return loading.load(self.data)

    @property
    def protocol(self) -> str:
        return str(self.results["test"]["protocol"])

    @property
    def configuration(self) -> str:
        results, trials = self.results, self.results.get("trials", [])
        chosen = [results.get("select"), len(trials)] if trials else results["hyperparameters"]
        return json.dumps([self.label, results["data"], results["refit"], chosen], sort_keys=True)

    def is_refit(self, plan: Plan) -> bool:
        refit = self.results["refit"] and plan.takes_refit
        return bool(refit or self.results["data"].get("join_valid"))

    def measure(self, dataset: Dataset, plan: Plan) -> dict[str, np.ndarray]:
        """Compute users' values as `TrainedRun.measure` does.

        Raises:
          InputError: it was tuned on other data, or a package is not installed.
        """
        joined = dataset.joined() if self.results["data"].get("join_valid") else dataset
        self._check_same_data(joined)
        stored = _stored_values(self.results, joined, plan)
        if stored and plan.is_as_stored(self.results["refit"]):
            return stored
        train = joined.joined().train if self.is_refit(plan) else joined.train
        method = baselines.METHODS[self.label](**self.results["hyperparameters"])
        evaluation = EvaluationConfig(**plan.changes())
        scorer = method.fit(train, self.seed)
        measured = baselines.evaluate(scorer, joined, evaluation, plan.split)
        return _as_arrays(measured["per_user"], plan)

    def diagnoses(self, dataset: Dataset, plan: Plan) -> list[Diagnosis]:
        """A baseline has no relation."""
        return []

    def _check_same_data(self, dataset: Dataset) -> None:
        # Older results know the sizes alone.
        known = self.results.get("digests", {}).get("data", dataset.digest)
        if known != dataset.digest or self.results["split_sizes"] != dataset.split_sizes:
            raise InputError(
                f"{self.folder}: the baseline was tuned on other data than data set "
                f"{dataset.name} is now; restore the data, or tune it again"
            )


Measurable = TrainedRun | TunedBaseline


def open_folder(folder: str | pathlib.Path) -> Measurable:
    """Open the folder of a finished training run, or of a baseline.

    Raises:
      InputError: it is neither, its training is not finished, or a file is damaged.
    """
    folder = pathlib.Path(folder)
    path = folder / "results.json"
    results = read_json_object(path, _TYPES) if path.is_file() else {}
    if (folder / "config.json").is_file():
        epochs = check_finished(folder)
        is_current = results.get("train", {}).get("epochs") == epochs
        return TrainedRun(folder, load_config(folder), results if is_current else {})
    if results.get("baseline") in baselines.METHODS:
        if missing := [name for name in _NEEDED if name not in results]:
            raise InputError(f"{path}: has no {missing[0]}; run hlr-jax baseline again")
        if not isinstance(results["test"].get("protocol"), str):
            raise InputError(f"{path}: has no test.protocol; run hlr-jax baseline again")
        return TunedBaseline(folder, results)
    raise InputError(
        f"{folder}: holds neither a training run (config.json) nor the results of a baseline "
        "(results.json); name a folder that hlr-jax train or hlr-jax baseline has written"
    )


def _stored_values(
    results: Mapping[str, Any], dataset: Dataset, plan: Plan
) -> dict[str, np.ndarray]:
    """Take the users' values from results; nothing where they lack some or are of other data."""
    summary = results.get(plan.split, {})
    of_users = summary.get("per_user", {})
    if (
        results.get("digests") != dataset.digests
        or summary.get("protocol") != plan.protocol
        or not set(plan.metrics) <= of_users.keys()
    ):
        return {}
    return _as_arrays(of_users, plan)


def _as_arrays(of_users: Mapping[str, list[float | None]], plan: Plan) -> dict[str, np.ndarray]:
    return {metric: np.array(of_users[metric], np.float64) for metric in plan.metrics}

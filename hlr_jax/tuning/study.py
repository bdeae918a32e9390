"""Keep a sweep in its working directory: what is searched, and the trials so far.

`sweep.json` says what is searched, and `sweep.db` (SQLite, by Optuna) holds the trials. The folder
is locked while a sweep runs.
"""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

from hlr_jax import config as configs
from hlr_jax import locks
from hlr_jax.config import Config
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.files import read_json_object, write_json
from hlr_jax.tuning.outcome import Outcome, Trial
from hlr_jax.tuning.search_space import Space

try:
    import optuna
    import sqlalchemy
    from optuna.trial import TrialState
except ImportError as error:
    raise InputError(f"a sweep needs {error.name}: pip install 'hlr_jax[sweep]'") from None

# A trial is pruned after an epoch if its best value so far is worse than the median, at that
# epoch, of the trials that ran to their end; not before so many of those, nor in the first epochs.
STARTUP_TRIALS = 5
STARTUP_EPOCHS = 5


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched; the same whenever a sweep is resumed.

    Attributes:
      config: what is not varied; its `training.selection_metric` is the objective.
      dataset: None if the data are varied, and every trial loads its own.
    """

    config: Config
    space: Space
    dataset: Dataset | None

    @property
    def objective(self) -> str:
        """A metric and its cutoff, or loss."""
        return self.config.training.selection_metric

    def description(self) -> dict[str, Any]:
        """Return what `sweep.json` holds."""
        return {
            "objective": self.objective,
            "vary": {field: str(values) for field, values in self.space.items()},
            "config": configs.as_dict(self.config),
            "dataset": self.dataset.digest if self.dataset else None,
        }


@contextlib.contextmanager
def open_study(folder: pathlib.Path, search: Search) -> Iterator[optuna.Study]:
    """Begin or resume the study in a folder, and keep other processes from it.

    Raises:
      InputError: the folder holds another search, a damaged one or one that is running, or
        cannot be written to.
    """
    with locks.locked(folder):
        if (folder / "sweep.json").exists():
            _check_same(search, read_json_object(folder / "sweep.json"), folder)
        write_json(folder / "sweep.json", search.description())
        with _study(folder / "sweep.db", search) as study:
            yield study


@contextlib.contextmanager
def _study(path: pathlib.Path, search: Search) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # It logs every trial otherwise.
    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
    try:
        storage = optuna.storages.RDBStorage(url.render_as_string())
    except sqlalchemy.exc.DatabaseError as error:
        raise InputError(
            f"{path}: cannot be used ({error.orig}); delete it to begin again"
        ) from None
    try:
        study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="minimize" if search.objective == "loss" else "maximize",
            # Not before epoch STARTUP_EPOCHS; the steps that are reported are epochs, from 1.
            pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, STARTUP_EPOCHS),
            load_if_exists=True,
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Of a session that was killed.
            study.tell(trial.number, state=TrialState.FAIL)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_same(search: Search, stored: dict[str, Any], folder: pathlib.Path) -> None:
    """Raise InputError if the folder holds another search; the first flag that differs is named."""
    new, old = _flags(search.description()), _flags(stored)
    # The objective first: config.training.selection_metric differs with it.
    for flag in sorted(new.keys() | old.keys(), key=lambda flag: (flag != "objective", flag)):
        if new.get(flag) != old.get(flag):
            has, wants = (
                f"--{flag}={flags[flag]}" if flag in flags else f"no --{flag}"
                for flags in (old, new)
            )
            raise InputError(
                f"--workdir={folder} holds a sweep with {has}, not {wants}; use another folder, "
                "or the same search to resume it"
            )
    if search.description()["dataset"] != stored["dataset"]:
        raise InputError(
            f"--workdir={folder} holds a sweep on other data than the data set is now; restore "
            "the data, or use another folder"
        )


def _flags(description: dict[str, Any]) -> dict[str, Any]:
    """List what a sweep was started with, by flag."""
    config = configs.flat(configs.from_config_dict(description["config"]))
    return (
        {"objective": description["objective"]}
        | {f"vary={field}": values for field, values in description["vary"].items()}
        | {f"config.{field}": value for field, value in config.items()}
    )


def outcome_of(study: optuna.Study, search: Search) -> Outcome:
    """Collect the trials of a study."""
    trials = []
    for trial in study.get_trials(deepcopy=False):
        counts = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        epoch, value = best_epoch(trial, search.objective)
        trials.append(
            Trial(
                number=trial.number,
                state=trial.user_attrs["end"] if counts else "interrupted",
                value=value,
                best_epoch=epoch,
                seconds=trial.duration.total_seconds() if counts and trial.duration else None,
                reason=trial.user_attrs.get("reason", ""),
                parameters={f: trial.params[f] for f in search.space if f in trial.params},
            )
        )
    return Outcome(search.config, search.space, search.objective, trials)


def best_epoch(trial: optuna.trial.FrozenTrial, objective: str) -> tuple[int, float | None]:
    """Find the epoch that training would select, the first of equal ones, and its value."""
    sign = -1 if objective == "loss" else 1
    values = sorted(trial.intermediate_values.items())
    return max(values, key=lambda one: sign * one[1], default=(0, None))


def importances(study: optuna.Study) -> dict[str, float]:
    """Estimate how important each field is, 1 in all; empty before `STARTUP_TRIALS` trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < STARTUP_TRIALS:
        return {}
    # By what sets the best tenth of the trials apart; of few trials, the best half or so.
    quantile = min(0.5, max(0.1, 5 / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        # The picture says how many trials there were.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator)

"""Search for hyperparameters: trials by Optuna, each a training run that is kept in memory.

A sweep lives in its working directory and may be stopped at any time, also by force:
`sweep.json` says what is searched, `sweep.db` (SQLite, by Optuna) holds the trials, and
`hlr_jax.tuning.report` writes what they found. What a trial tries is a function of the seed and of
the trials that count before it, so a sweep that was stopped tries what it would have tried.
"""

import contextlib
import dataclasses
import math
import pathlib
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.data import datasets
from hlr_jax.data.datasets import Dataset
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.evaluation import metrics
from hlr_jax.files import read_json_object, write_json
from hlr_jax.parallel import processes
from hlr_jax.runs import experiment
from hlr_jax.training.loop import Record
from hlr_jax.tuning import report as sweep_report
from hlr_jax.tuning import search_space
from hlr_jax.tuning.report import Outcome, Trial
from hlr_jax.tuning.search_space import Space, Value

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


# Fields with another value of which a loss is another loss.
_DECIDES_LOSS = (
    "loss.",
    "sampling.pool",
    "sampling.skew",
    "sampling.negatives",
    "model.name",
    "model.alpha_",
    "model.diversity_weight",
    "model.min_diversity",
    "model.max_diversity",
)


@dataclasses.dataclass(frozen=True)
class _Search:
    """What is searched; the same whenever a sweep is resumed."""

    config: Config
    space: Space
    objective: str
    dataset: Dataset | None  # None if the data are varied: every trial loads its own.

    def description(self) -> dict[str, Any]:
        """What `sweep.json` says of it."""
        return {
            "objective": self.objective,
            "vary": {field: str(values) for field, values in self.space.items()},
            "config": configs.as_dict(self.config),
            "dataset": self.dataset.digest if self.dataset else None,
        }


def search(
    config: Config,
    workdir: str | pathlib.Path,
    vary: Sequence[str],
    objective: str = "ndcg@10",
    trials: int | None = None,
    minutes: float | None = None,
    dataset: Dataset | None = None,
    show_progress: bool = True,
) -> Outcome:
    """Search for the values of some fields that are best on validation, or go on searching.

    Args:
      config: what is not varied. `training.select` becomes the objective.
      workdir: where the sweep is kept; see `hlr_jax.tuning.report` for what it writes there.
      vary: what is varied, as in "loss.margin=0.2:2.0"; see `hlr_jax.tuning.search_space`.
      objective: a metric such as ndcg@10, to be as high as possible; or loss, to be low.
      trials: the most trials; those of earlier sessions count, unless they were interrupted.
      minutes: the most time in trials, which also adds up over sessions. The trial that exceeds
        it ends with its epoch.
      dataset: data to use instead of what `config.data` says.

    Raises:
      InputError: an argument, the data or the working directory cannot be used, and nothing is
        written; or no trial gave a value.
      KeyboardInterrupt: the process was asked to stop; the same call goes on.
    """
    if processes.count() > 1:
        raise InputError("--num_processes: a sweep is one process, which uses all its devices")
    if trials is None and minutes is None:
        raise InputError("--trials, --minutes: say how long to search; the first reached ends it")
    if trials is not None and trials < 1:
        raise InputError(f"--trials={trials}: try at least 1")
    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"--minutes={minutes}: use a time above 0")
    folder = pathlib.Path(workdir)
    chosen = _checked(config, vary, objective, dataset, show_progress)
    with _open(folder, chosen) as study:
        outcome = _outcome(study, chosen)
        with tqdm(
            total=trials,
            initial=len(outcome.counted),
            unit=" trials",
            disable=not show_progress,
            dynamic_ncols=True,
        ) as bar:
            while True:
                sweep_report.write(folder, outcome)
                left = math.inf if minutes is None else 60 * minutes - outcome.seconds
                if left <= 0 or (trials is not None and len(outcome.counted) >= trials):
                    break
                try:
                    deadline = time.monotonic() + left
                    number = _run(study, chosen, len(outcome.counted), deadline, bar)
                except KeyboardInterrupt:
                    sweep_report.write(folder, _outcome(study, chosen))
                    raise KeyboardInterrupt(
                        "the same command goes on, with this trial anew"
                    ) from None
                outcome = _outcome(study, chosen)
                if show_progress:
                    bar.write(sweep_report.line(outcome.trials[number], outcome))
                bar.update()
        if not outcome.ranked:
            raise InputError(
                f"--vary: none of {len(outcome.counted)} trials gave a value; the last one: "
                f"{outcome.counted[-1].reason}"
            )
        sweep_report.draw(folder / "importance.png", outcome, _importances(study))
    return outcome


def _checked(
    config: Config,
    vary: Sequence[str],
    objective: str,
    dataset: Dataset | None,
    show_progress: bool,
) -> _Search:
    """Raises InputError for what would fail later, before anything is written."""
    space = search_space.parse(vary)
    if objective != "loss":
        metrics.parse(objective, "--objective")
    elif incomparable := [field for field in space if field.startswith(_DECIDES_LOSS)]:
        raise InputError(
            f"--objective=loss: losses with another {incomparable[0]} do not compare; "
            "use a metric like ndcg@10"
        )
    selecting = dataclasses.replace(config.training, select=objective)
    config = dataclasses.replace(config, training=selecting)
    config = search_space.with_values(config, {})
    if any(field.startswith("data.") for field in space):
        if dataset is not None:
            raise ValueError("a data set was given, and fields of config.data are to be varied")
    else:
        dataset = dataset or datasets.load(config.data, show_progress)
        if not len(dataset.valid):
            raise InputError(
                f"--objective={objective}: data set {dataset.name} has no validation split"
            )
    search_space.check(space, config, dataset)
    return _Search(config, space, objective, dataset)


@contextlib.contextmanager
def _open(folder: pathlib.Path, chosen: _Search) -> Iterator[optuna.Study]:
    """The study in a folder, begun or resumed, with nobody else at it.

    Raises:
      InputError: the folder holds another search, a damaged one or one that is running, or
        cannot be written to.
    """
    if folder.is_file():
        raise InputError(f"--workdir={folder}: is a file; name a folder")
    if (folder / "sweep.json").exists():
        _check_same(chosen, read_json_object(folder / "sweep.json"), folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(folder / "sweep.lock", timeout=0, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"--workdir={folder}: cannot be written to ({error})") from None
    with contextlib.closing(lock):
        try:
            # The system gives the lock back however this process ends.
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise InputError(
                f"--workdir={folder}: another sweep is running there; wait for it, or use "
                "another folder"
            ) from None
        write_json(folder / "sweep.json", chosen.description())
        with _study(folder / "sweep.db", chosen) as study:
            yield study


@contextlib.contextmanager
def _study(path: pathlib.Path, chosen: _Search) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # It tells of every trial otherwise.
    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
    try:
        storage = optuna.storages.RDBStorage(url.render_as_string())
    except sqlalchemy.exc.DatabaseError as error:
        raise InputError(
            f"{path}: cannot be used ({error.orig}); delete it to begin anew"
        ) from None
    try:
        study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="minimize" if chosen.objective == "loss" else "maximize",
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


def _check_same(chosen: _Search, stored: dict[str, Any], folder: pathlib.Path) -> None:
    new, old = _flags(chosen.description()), _flags(stored)
    # The objective first: config.training.select differs with it.
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
    if chosen.description()["dataset"] != stored["dataset"]:
        raise InputError(
            f"--workdir={folder} holds a sweep on other data than the data set is now; restore "
            "the data, or use another folder"
        )


def _flags(description: dict[str, Any]) -> dict[str, Any]:
    """What a sweep was started with, by flag."""
    config = configs.flat(configs.from_config_dict(description["config"]))
    return (
        {"objective": description["objective"]}
        | {f"vary={field}": values for field, values in description["vary"].items()}
        | {f"config.{field}": value for field, value in config.items()}
    )


def _run(study: optuna.Study, chosen: _Search, num_counted: int, deadline: float, bar: tqdm) -> int:
    """Run one trial to whatever end it comes to; its number."""
    seeds = np.random.SeedSequence([chosen.config.seed, num_counted])
    study.sampler = optuna.samplers.TPESampler(seed=int(seeds.generate_state(1)[0]))
    trial = study.ask()
    try:
        end, reason = _train(trial, chosen, deadline, bar)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    finally:
        # Its programs serve no other trial: rates and margins are constants in them.
        jax.clear_caches()
    trial.set_user_attr("end", end)
    trial.set_user_attr("reason", reason)
    if end == "complete":
        study.tell(trial, _best(study.trials[trial.number], chosen.objective)[1])
    else:
        study.tell(trial, state=TrialState.PRUNED)
    return trial.number


def _train(trial: optuna.Trial, chosen: _Search, deadline: float, bar: tqdm) -> tuple[str, str]:
    """Train with what the trial suggests.

    Returns:
      How it ended, a `state` of `sweep_report.Trial`, and why if it failed.
    """
    values = _suggest(trial, chosen)
    name = f"valid_{chosen.objective}"

    def on_epoch(record: Record) -> None:
        epoch, epochs = int(record["epoch"]), config.training.epochs
        if name not in record:
            raise InputError("its data set has no validation split")
        if not math.isfinite(record[name]):
            raise DivergedError(f"{chosen.objective} is not finite in epoch {epoch}")
        trial.report(float(record[name]), epoch)
        bar.set_description(f"trial {trial.number}, epoch {epoch}/{epochs}")
        if epoch < epochs:
            if trial.should_prune():
                raise optuna.TrialPruned
            if time.monotonic() > deadline:
                raise _OutOfTime

    bar.set_description(f"trial {trial.number}")
    try:
        # Training anew on validation too would tell nothing; it is left to who trains the best.
        config = search_space.with_values(chosen.config, values | {"training.refit": False})
        experiment.train(config, None, chosen.dataset, show_progress=False, on_epoch=on_epoch)
    except optuna.TrialPruned:
        return "pruned", ""
    except _OutOfTime:
        return "timeout", ""
    except DivergedError as error:
        return "diverged", str(error)
    except InputError as error:
        return "refused", str(error)
    return "complete", ""


class _OutOfTime(Exception):
    """The sweep's time is over."""


def _suggest(trial: optuna.Trial, chosen: _Search) -> dict[str, Value]:
    """A value of every varied field that the trial's model uses."""
    found: dict[str, Value] = {}
    for field, values in chosen.space.items():  # model.name is the first, if varied
        if not search_space.is_used(field, str(found.get("model.name", chosen.config.model.name))):
            continue
        found[field] = search_space.suggest(trial, field, values)
    return found


def _outcome(study: optuna.Study, chosen: _Search) -> Outcome:
    trials = []
    for trial in study.get_trials(deepcopy=False):
        counts = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        epoch, value = _best(trial, chosen.objective)
        trials.append(
            Trial(
                number=trial.number,
                state=trial.user_attrs["end"] if counts else "interrupted",
                value=value,
                best_epoch=epoch,
                seconds=trial.duration.total_seconds() if counts and trial.duration else None,
                reason=trial.user_attrs.get("reason", ""),
                parameters={f: trial.params[f] for f in chosen.space if f in trial.params},
            )
        )
    return Outcome(chosen.config, chosen.space, chosen.objective, trials)


def _best(trial: optuna.trial.FrozenTrial, objective: str) -> tuple[int, float | None]:
    """The epoch that training would select, the first of equals, and its value."""
    sign = -1 if objective == "loss" else 1
    values = sorted(trial.intermediate_values.items())
    return max(values, key=lambda one: sign * one[1], default=(0, None))


def _importances(study: optuna.Study) -> dict[str, float]:
    """By field, 1 in all; none with fewer than `STARTUP_TRIALS` completed trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < STARTUP_TRIALS:
        return {}
    # What told the best tenth of the trials from the rest; of few trials, the best half or so.
    quantile = min(0.5, max(0.1, 5 / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        # The picture says how many trials there were.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator)

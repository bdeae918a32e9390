"""Search for hyperparameters: trials by Optuna, each a training run that is kept in memory.

A sweep lives in its working directory (`hlr_jax.tuning.study`) and may be stopped at any time, also
by force; `hlr_jax.tuning.report` writes its results there. The values of a trial are a function of
the seed and of the counted trials before it, so a sweep that was stopped and resumed tries the same
values as one that was not.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from hlr_jax.config import Config, build
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.evaluation import metrics
from hlr_jax.parallel import processes
from hlr_jax.progress import Shown, shown
from hlr_jax.runs import experiment
from hlr_jax.runs.trackers import Each
from hlr_jax.training.loop import Record
from hlr_jax.tuning import report, search_space, specs
from hlr_jax.tuning.outcome import Outcome
from hlr_jax.tuning.search_space import Value
from hlr_jax.tuning.study import Search, best_epoch, importances, open_study, outcome_of

try:
    import optuna
    from optuna.trial import TrialState
except ImportError as error:
    raise InputError(f"a sweep needs {error.name}: pip install 'hlr_jax[sweep]'") from None

# Losses are not comparable between trials that differ in these fields, or in one that begins so.
_DECIDE_LOSS = (
    "loss.",
    "geometry.",
    "sampling.negatives",
    "model.name",
    "model.alpha_",
    "model.diversity_weight",
    "model.min_diversity",
    "model.max_diversity",
)

# Compiled programs are kept for this many settings of the fields that shape programs.
_KEPT_PROGRAMS = 8


@dataclasses.dataclass(frozen=True)
class Budget:
    """When a sweep ends: at what is reached first.

    Attributes:
      trials: the most trials; those of earlier sessions count, unless they were interrupted.
      minutes: the most time in trials, which also adds up over sessions. The trial that exceeds
        it ends with its epoch.
    """

    trials: int | None = None
    minutes: float | None = None

    def check(self) -> None:
        """Raise InputError unless there is an end."""
        if self.trials is None and self.minutes is None:
            raise InputError(
                "--trials, --minutes: say how long to search; the first reached ends it"
            )
        if self.trials is not None and self.trials < 1:
            raise InputError(f"--trials={self.trials}: try at least 1")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(f"--minutes={self.minutes}: use a time above 0")

    def seconds_left(self, outcome: Outcome) -> float:
        """Return the time that is left for further trials; 0 or less if there are none."""
        if self.trials is not None and len(outcome.counted) >= self.trials:
            return 0.0
        return math.inf if self.minutes is None else 60 * self.minutes - outcome.seconds


def search(
    config: Config,
    workdir: str | pathlib.Path,
    vary: Sequence[str],
    budget: Budget,
    dataset: Dataset | None = None,
    show_progress: bool = True,
) -> Outcome:
    """Search for the values of some fields that are best on validation, or resume a search.

    Args:
      config: what is not varied. Its `training.selection_metric` is the objective: a metric such
        as ndcg@10, which is maximized, or loss, which is minimized.
      workdir: where the sweep is kept; see `hlr_jax.tuning.report` for what it writes there.
      vary: what is varied, as in "loss.margin=0.2:2.0"; see `hlr_jax.tuning.search_space`.
      dataset: data to use instead of what `config.data` says.

    Raises:
      InputError: an argument, the data or the working directory cannot be used, and nothing is
        written; or no trial gave a value.
      KeyboardInterrupt: the process was asked to stop; the same call resumes the search.
    """
    if processes.count() > 1:
        raise InputError("--num_processes: a sweep is one process, which uses all its devices")
    budget.check()
    folder = pathlib.Path(workdir)
    chosen = _checked(config, vary, dataset, show_progress)
    with open_study(folder, chosen) as study:
        outcome = outcome_of(study, chosen)
        done = len(outcome.counted)
        with shown(budget.trials or 0, "trials", "", done, show_progress) as bar:
            trials = _Trials(study, chosen, bar)
            report.write(folder, outcome)
            while (left := budget.seconds_left(outcome)) > 0:
                try:
                    number = trials.run(len(outcome.counted), time.monotonic() + left)
                except KeyboardInterrupt:
                    report.write(folder, outcome_of(study, chosen))
                    raise KeyboardInterrupt(
                        "the same command resumes the sweep and starts this trial again"
                    ) from None
                outcome = outcome_of(study, chosen)
                report.write(folder, outcome)
                bar.write(report.line(outcome.trials[number], outcome))
                bar.advance()
        if not outcome.ranked:
            raise InputError(
                f"--vary: none of {len(outcome.counted)} trials gave a value; the last one: "
                f"{outcome.counted[-1].reason}"
            )
        report.draw(folder / "importance.png", outcome, importances(study))
    return outcome


def _checked(
    config: Config, vary: Sequence[str], dataset: Dataset | None, show_progress: bool
) -> Search:
    """Raise InputError for what would fail later, before anything is written."""
    space, objective = specs.parse(vary), config.training.selection_metric
    if objective != "loss":
        metrics.parse(objective, "--objective")
    else:
        sampling = tuple(f"sampling.{option}" for option in build.all_options("sampling"))
        for field in space:
            if field.startswith(_DECIDE_LOSS + sampling):
                raise InputError(
                    f"--objective=loss: losses with different {field} are not comparable; "
                    "use a metric like ndcg@10"
                )
    config = search_space.with_values(config, {})
    if any(field.startswith("data.") for field in space):
        if dataset is not None:
            raise ValueError("a data set was given, and fields of config.data are to be varied")
    else:
        dataset = dataset or loading.load(config.data, show_progress)
        if not len(dataset.valid):
            raise InputError(
                f"--objective={objective}: data set {dataset.name} has no validation split"
            )
    search_space.check(space, config, dataset)
    return Search(config, space, dataset)


class _Trials:
    """Runs the trials of one session."""

    def __init__(self, study: optuna.Study, search: Search, bar: Shown) -> None:
        self._study, self._search, self._bar = study, search, bar
        self._shapes: set[tuple[tuple[str, Value], ...]] = set()

    def run(self, num_counted: int, deadline: float) -> int:
        """Run one trial to its end, whatever that is, and return its number."""
        study = self._study
        seeds = np.random.SeedSequence([self._search.config.seed, num_counted])
        study.sampler = optuna.samplers.TPESampler(seed=int(seeds.generate_state(1)[0]))
        trial = study.ask()
        try:
            end, reason = self._train(trial, deadline)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        trial.set_user_attr("end", end)
        trial.set_user_attr("reason", reason)
        if end == "complete":
            _, value = best_epoch(study.trials[trial.number], self._search.objective)
            study.tell(trial, value)
        else:
            study.tell(trial, state=TrialState.PRUNED)
        return trial.number

    def _train(self, trial: optuna.Trial, deadline: float) -> tuple[str, str]:
        """Train with the values that are suggested.

        Returns:
          How it ended, a `state` of `Trial`, and why if it failed.
        """
        search, bar, objective = self._search, self._bar, self._search.objective
        values = search_space.suggest_all(trial, search.space, search.config)
        self._drop_old_programs(values)
        name = f"valid_{objective}"

        def on_epoch(record: Record) -> None:
            epoch, epochs = int(record["epoch"]), config.training.epochs
            if name not in record:
                raise InputError("its data set has no validation split")
            if not math.isfinite(record[name]):
                raise DivergedError(f"{objective} is not finite in epoch {epoch}")
            trial.report(float(record[name]), epoch)
            bar.describe(f"trial {trial.number}, epoch {epoch}/{epochs}")
            bar.end_part()
            if epoch < epochs:
                if trial.should_prune():
                    raise optuna.TrialPruned
                if time.monotonic() > deadline:
                    raise _OutOfTime

        bar.describe(f"trial {trial.number}")
        try:
            # A refit has no validation value; it is left to the training of the best trial.
            config = search_space.with_values(search.config, values | {"training.refit": False})
            experiment.try_out(config, search.dataset, Each(on_epoch))
        except optuna.TrialPruned:
            return "pruned", ""
        except _OutOfTime:
            return "timeout", ""
        except DivergedError as error:
            return "diverged", str(error)
        except InputError as error:
            return "refused", str(error)
        return "complete", ""

    def _drop_old_programs(self, values: dict[str, Value]) -> None:
        """Free compiled programs before there are too many; rates, margins and radii need none."""
        shape = tuple((f, value) for f, value in values.items() if not isinstance(value, float))
        if shape not in self._shapes and len(self._shapes) >= _KEPT_PROGRAMS:
            jax.clear_caches()
            self._shapes.clear()
        self._shapes.add(shape)


class _OutOfTime(Exception):
    """The sweep's time is over."""

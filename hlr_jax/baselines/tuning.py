"""Tune baselines on validation, with a number of trials that models can be given as well."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from hlr_jax import locks
from hlr_jax.baselines.methods import METHODS, Method
from hlr_jax.baselines.recommender import MODEL_FILE, BaselineRecommender
from hlr_jax.baselines.scoring import evaluate
from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.evaluation import metrics
from hlr_jax.evaluation.evaluate import check_cutoffs, check_protocol
from hlr_jax.files import write_json
from hlr_jax.parallel import processes
from hlr_jax.progress import digits, shown
from hlr_jax.tuning.search_space import suggest

# Of one trial: hyperparameters, the value of the metric (None where it diverged), and seconds.
Tried = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How the hyperparameters of a baseline are chosen.

    Attributes:
      trials: settings to try on validation.
      select: metric on validation, with the whole catalogue ranked, that selects the best one.
      fixed: hyperparameters to take instead of tuning; those not named have their defaults.
    """

    trials: int = 20
    select: str = "ndcg@10"
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def tune(
    method: type[Method],
    dataset: Dataset,
    tuning: Tuning,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[Method, list[Tried]]:
    """Find the hyperparameters that are best on validation, by Optuna's TPE sampler.

    Args:
      seed: of the sampler and of every fit.

    Returns:
      The best, and each trial; no trials for a method without hyperparameters, or fixed ones.

    Raises:
      InputError: there is no validation split or no such metric, packages are not installed, or
        users are held out for whom the method cannot rank.
      DivergedError: no trial had a finite outcome.
    """
    if len(dataset.given) and not method.ranks_untrained_users:
        able = [name for name, other in METHODS.items() if other.ranks_untrained_users]
        raise InputError(
            f"{method.__name__} has no vectors of the users that data set {dataset.name} holds "
            f"out; use {', '.join(able)}"
        )
    if tuning.fixed or not method.space:
        return method(**tuning.fixed), []
    trials, select = tuning.trials, tuning.select
    _, cutoff = metrics.parse(select, "--select")
    check_cutoffs((cutoff,), dataset, f"--select={select}")
    if trials < 1:
        raise InputError(f"--trials={trials}: use 1 or more")
    if not len(dataset.valid):
        raise InputError(
            f"data set {dataset.name} has no validation split to tune on; give --set=NAME=VALUE"
        )
    optuna = _optuna()
    evaluation = EvaluationConfig(cutoffs=(cutoff,), bootstrap=0)
    tried: list[Tried] = []

    def value_of(trial: Any) -> float:
        start = time.perf_counter()
        values = {name: suggest(trial, name, where) for name, where in method.space.items()}
        tried.append({"hyperparameters": values, select: None})
        try:
            scorer = method(**values).fit(dataset.train, seed)
            tried[-1][select] = evaluate(scorer, dataset, evaluation, "valid")[select]
        finally:
            tried[-1]["seconds"] = round(time.perf_counter() - start, 3)
        return float(tried[-1][select])

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with shown(trials, "trials", "tuning", show_progress=show_progress) as bar:

        def tell(*trial: Any) -> None:
            known = [trial[select] for trial in tried if trial[select] is not None]
            bar.note(**{f"best {select}": digits(max(known)) if known else "unknown"})
            bar.advance()

        study.optimize(value_of, trials, catch=(DivergedError,), callbacks=[tell])
    finite = [trial for trial in tried if trial[select] is not None]
    if not finite:
        raise DivergedError(f"none of {trials} trials had a finite outcome")
    best = max(finite, key=lambda trial: trial[select])
    return method(**best["hyperparameters"]), tried


def _optuna() -> Any:
    """Import Optuna, which is not always installed, and silence it."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "the package optuna is not installed; pip install 'hlr_jax[sweep]', "
            "or give --set=NAME=VALUE"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def tune_and_evaluate(
    name: str,
    config: Config,
    workdir: str | pathlib.Path,
    tuning: Tuning | None = None,
    refit: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Tune a baseline, fit it, and evaluate it on validation and test.

    Args:
      name: of `METHODS`.
      config: whose `data`, `evaluation` and `seed` are used.
      workdir: folder that `results.json` and the fitted baseline are written to.
      tuning: by default 20 trials, selected by ndcg@10.
      refit: fit on training and validation before the test, as `config.training.refit` does
        for models.

    Returns:
      What it also writes: baseline, dataset, data, seed, split_sizes, digests, hyperparameters,
      select, trials, refit, fit_seconds, valid and test.

    Raises:
      InputError: configuration, hyperparameters, data or working directory cannot be used.
      DivergedError: what was fitted is not finite.
    """
    workdir, tuning = pathlib.Path(workdir), tuning or Tuning()
    _check_workdir(workdir)
    METHODS[name](**tuning.fixed)
    with locks.locked(workdir):
        return _results(name, config, workdir, tuning, refit, show_progress)


def _results(
    name: str,
    config: Config,
    workdir: pathlib.Path,
    tuning: Tuning,
    refit: bool,
    show_progress: bool,
) -> dict[str, Any]:
    """Do what `tune_and_evaluate` does, in a folder that nobody else writes into."""
    dataset = loading.load(config.data, show_progress)
    check_cutoffs(config.evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
    check_protocol(config, dataset)
    method, tried = tune(METHODS[name], dataset, tuning, config.seed, show_progress)
    start = time.perf_counter()
    found = BaselineRecommender.fit(method, dataset, config.seed)
    seconds = time.perf_counter() - start
    results: dict[str, Any] = {
        "baseline": name,
        "dataset": dataset.name,
        "data": dataclasses.asdict(config.data),
        "seed": config.seed,
        "split_sizes": dataset.split_sizes,
        "digests": dataset.digests,
        "hyperparameters": dataclasses.asdict(method),
        "select": tuning.select if tried else None,
        "trials": tried,
        "refit": refit,
        "fit_seconds": round(seconds, 3),
        "valid": {},
        "test": {},
    }
    if len(dataset.valid):
        # Negatives are given for the test split alone.
        on_all_items = dataclasses.replace(config.evaluation, protocol="full")
        results["valid"] = found.evaluate("valid", on_all_items)
    if refit:
        found = BaselineRecommender.fit(method, dataset.joined(), config.seed)
    if len(dataset.test):
        results["test"] = found.evaluate("test", config.evaluation)
    found.save(workdir / MODEL_FILE)
    write_json(workdir / "results.json", results)
    return results


def _check_workdir(workdir: pathlib.Path) -> None:
    """Raise InputError where results of a baseline cannot be written."""
    if (workdir / "checkpoints").exists():
        raise InputError(f"--workdir={workdir}: holds the training run of a model; name another")
    if processes.count() > 1:
        raise InputError("baselines are fitted by one process; start it alone")

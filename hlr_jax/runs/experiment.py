"""Run an experiment: load data, build the model, train and evaluate it."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import numpy as np
import optax
from absl import logging

from hlr_jax import locks
from hlr_jax.config import Config, build
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.files import write_json
from hlr_jax.parallel import devices, processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.registry import is_own
from hlr_jax.runs import compatibility
from hlr_jax.runs.background import while_training
from hlr_jax.runs.diagnosis import diagnosis_in_results
from hlr_jax.runs.pretrained import carried_over, pretrained_tables
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.trackers import Callback, Start, Together
from hlr_jax.runs.workdir import open_run, refit_folder
from hlr_jax.sampling.epoch_order import num_steps
from hlr_jax.sampling.samplers import build_sampler
from hlr_jax.training.inputs import (
    make_objective,
    make_recipe,
    training_positives,
    validation_positives,
)
from hlr_jax.training.loop import OnEpoch, Program, Record, fit, ignore_epoch
from hlr_jax.training.objective import project
from hlr_jax.training.optimizers import GivenOptimizer, Optimizer, frozen_tables
from hlr_jax.training.state import Keys, Sizes, new_params, num_parameters
from hlr_jax.training.store import MemoryStore, Progress, Store
from hlr_jax.training.validation import mean_loss
from hlr_jax.types import Params


class Given(TypedDict, total=False):
    """Objects that a run may be given. They are not stored: give them again to resume.

    Attributes:
      optimizer: an Optax transformation instead of the one that `config.optimizer` names.
      start_from: a trained model of the same kind and size. Users and items that it knows begin
        with their rows, by id, and the relation as it was; others are drawn.
    """

    optimizer: optax.GradientTransformation
    start_from: Recommender


class _Request(NamedTuple):
    """What the caller of `train` asks for, besides configuration and data."""

    show_progress: bool = True
    callback: Callback = Callback()
    given: Given = Given()


def train(
    config: Config,
    workdir: str | pathlib.Path | None = None,
    dataset: Dataset | None = None,
    show_progress: bool = True,
    callbacks: Sequence[Callback] = (),
    **given: Unpack[Given],
) -> Recommender:
    """Train a model, select its best epoch on validation, and return it.

    With `config.training.refit` the model is then trained again on training and validation
    interactions together, for as many epochs, and the second model is returned. A relation that
    is a constant is warned of (`hlr_jax.diagnose`).

    Args:
      workdir: where checkpoints, `config.json` and `metrics.jsonl` go; None keeps everything in
        memory. A folder with an unfinished run of the same configuration is resumed.
      dataset: data to use instead of what `config.data` says.
      callbacks: are told of the run (`hlr_jax.runs.trackers`).
      given: `optimizer` and `start_from`; see `Given`.

    Raises:
      InputError: configuration, data or working directory cannot be used, as one into which
        another run is writing. Nothing is written then.
      DivergedError: loss or parameters are no longer finite (`config.training.on_nonfinite`).
    """
    _check_arguments(config, workdir, dataset, given)
    request = _Request(show_progress, Together(callbacks), given)
    with _alone_in(workdir), _telling_of_the_end(request.callback) as results:
        selected, progress = _train(config, workdir, dataset, request)
        final, _ = _refitted(selected, progress, workdir, request)
        diagnosis_in_results(final)
        results |= _of_progress(progress)
    return final


def _check_arguments(config: Any, workdir: Any, dataset: Any, given: Mapping[str, Any]) -> None:
    """Refuse what stands in another's place, before it fails somewhere inside."""
    if unknown := [name for name in given if name not in Given.__annotations__]:
        raise InputError(f"{unknown[0]}: train has {', '.join(Given.__annotations__)} besides")
    start = given.get("start_from")
    for name, value, is_right, remedy in (
        ("config", config, isinstance(config, Config), "give a Config, first of all"),
        ("workdir", workdir, not isinstance(workdir, Dataset), "give a data set as dataset=.."),
        (
            *("dataset", dataset, dataset is None or isinstance(dataset, Dataset)),
            "make it a data set: hlr_jax.Dataset.from_frame(frame, user=.., item=..)",
        ),
        (
            *("start_from", start, start is None or isinstance(start, Recommender)),
            "give a model, as hlr_jax.load(path) returns",
        ),
    ):
        if not is_right:
            raise InputError(f"{name}: is a {type(value).__name__}; {remedy}")


def try_out(config: Config, dataset: Dataset | None, callback: Callback) -> None:
    """Train as `train` does to see how epochs turn out, as a trial of a sweep: nothing is kept.

    Nor is a relation diagnosed, which takes longer than a small trial does.
    """
    _train(config, None, dataset, _Request(False, callback))


def train_and_evaluate(
    config: Config,
    workdir: str | pathlib.Path,
    show_progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train as `train` does, and evaluate the best epoch on validation and test.

    Returns:
      What it also writes to `results.json`: `model`, `dataset`, `split_sizes`, `digests` (of the
      data), `train`, `valid`, `test`, `diagnosis` of the final model's relation
      (`Diagnosis.as_dict`), if it has one and tables are replicated, and `refit`: how the training
      went with `config.training.refit`, as in `train`.
    """
    request = _Request(show_progress, Together(callbacks))
    with _alone_in(workdir), _telling_of_the_end(request.callback) as numbers:
        selected, progress = _train(config, workdir, None, request)
        final, refit = _refitted(selected, progress, workdir, request)
        results = _measured(selected, final, progress, show_progress) | refit
        numbers |= _of_progress(progress)
        for split in ("valid", "test"):
            found = results[split].items()
            numbers |= {f"{split}_{k}": v for k, v in found if isinstance(v, float)}
        if processes.is_first():
            write_json(pathlib.Path(workdir) / "results.json", results)
    return results


def _alone_in(workdir: str | pathlib.Path | None) -> AbstractContextManager[None]:
    """Keep other runs out of a folder; the first process does so for all of this one."""
    if workdir is None or not processes.is_first():
        return contextlib.nullcontext()
    return locks.locked(pathlib.Path(workdir))


@contextlib.contextmanager
def _telling_of_the_end(callback: Callback) -> Iterator[dict[str, Any]]:
    """Tell a callback how a run ended: by what it collected, or by an error."""
    results: dict[str, Any] = {}
    try:
        yield results
    except BaseException as error:
        callback.on_end({"error": f"{type(error).__name__}: {error}"})
        raise
    callback.on_end(results)


def _of_progress(progress: Progress) -> dict[str, Any]:
    numbers = {"epochs": progress.epochs, "best_epoch": progress.best_epoch}
    return numbers | {f"best_valid_{name}": value for name, value in progress.best.items()}


def _course(progress: Progress) -> dict[str, Any]:
    """Say how a training went, for `results.json`."""
    return {
        "seconds": round(progress.seconds, 3),
        "epochs": progress.epochs,
        "rollbacks": progress.rollbacks,
        "warnings": list(progress.warnings),
    }


def _stopped_by(progress: Progress, config: Config) -> str:
    return "patience" if progress.lost_patience(config.training) else "epochs"


def _measured(
    selected: Recommender, final: Recommender, progress: Progress, show_progress: bool
) -> dict[str, Any]:
    """Measure a run; see `train_and_evaluate`."""
    config = selected.config
    dataset = selected.dataset
    negatives = build_sampler(config).num_negatives_of(dataset.num_items)
    interactions = progress.epochs * len(dataset.train)
    results: dict[str, Any] = {
        "model": config.model.name,
        "dataset": dataset.name,
        "split_sizes": dataset.split_sizes,
        "digests": dataset.digests,
        "train": _course(progress)
        | {
            "best_epoch": progress.best_epoch,
            "best_valid": progress.best,
            "stopped_by": _stopped_by(progress, config),
            "interactions_per_second": round(interactions / progress.seconds),
            "triplets_per_second": round(interactions * negatives / progress.seconds),
        },
        "valid": {},
    }
    if len(dataset.valid):
        results["valid"] = {"loss": selected.validation_loss()}
        # Negatives are given for the test split alone.
        on_all_items = selected.with_evaluation(protocol="full")
        results["valid"] |= on_all_items.evaluate("valid", show_progress)
    results["test"] = final.evaluate("test", show_progress) if len(final.dataset.test) else {}
    return results | diagnosis_in_results(final)


def _train(
    config: Config,
    workdir: str | pathlib.Path | None,
    dataset: Dataset | None,
    request: _Request,
) -> tuple[Recommender, Progress]:
    devices.warn_of_slow_scatters()
    config = with_absolute_paths(config)
    compatibility.check_config(config)
    config = _with_modules(config)
    model = build.build_model(config)
    dataset = dataset or _load(config, request.show_progress)
    compatibility.check(config, model, dataset)
    placement = Placement.of(config.sharding, model, dataset.num_users, dataset.num_items)
    objective = make_objective(config, model, dataset.num_items, dataset.features)
    params = new_params(Keys.of(config.seed).init, objective, placement, dataset.num_features)
    if config.training.pretrained:
        params = params | placement.params(pretrained_tables(config, model, dataset))
        params = project(objective, params)
    if "start_from" in request.given:
        start = carried_over(params, model, request.given["start_from"], dataset)
        params = placement.params(jax.tree.map(np.asarray, start))
    saving: AbstractContextManager[Store] = contextlib.nullcontext(MemoryStore())
    log: OnEpoch = ignore_epoch
    if workdir is not None:
        checkpoints, log = open_run(pathlib.Path(workdir), config, dataset, placement)
        saving = while_training(checkpoints)
    positives = training_positives(placement, dataset, config)
    steps = num_steps(len(positives), config.training.batch_size)
    recipe = make_recipe(config, objective, dataset, steps, _given(config, request))
    program = Program(config, recipe, placement, positives)

    sizes = Sizes(dataset.num_users, dataset.num_items, dataset.num_features)
    request.callback.on_start(Start(config, dataset, num_parameters(model, sizes)))

    def report(record: Record) -> None:
        log(record)
        request.callback.on_epoch(record)

    validate = _validation(program, dataset)
    with saving as store:
        best, progress = fit(program, params, validate, store, report, request.show_progress)
    return Recommender(config, dataset, model, best, placement), progress


def _with_modules(config: Config) -> Config:
    """Note the modules of components from elsewhere, so that who loads the run finds them."""
    modules = {type(x).__module__ for x in build.build_all(config) if not is_own(x)}
    modules -= set(config.imports)
    if "__main__" in modules:
        logging.warning(
            "a component of this run is defined in the program itself; put it into a module, or "
            "the run can be loaded by this program alone"
        )
    imports = (*config.imports, *sorted(modules - {"__main__"}))
    return dataclasses.replace(config, imports=imports)


def _given(config: Config, request: _Request) -> Optimizer | None:
    if "optimizer" not in request.given:
        return None
    return GivenOptimizer(request.given["optimizer"], frozen_tables(config))


def _refitted(
    selected: Recommender,
    progress: Progress,
    workdir: str | pathlib.Path | None,
    request: _Request,
) -> tuple[Recommender, dict[str, Any]]:
    """Train the selected model again on validation too, if `config.training.refit` asks for it.

    Returns:
      The final model, and how its training went as `refit`; else the selected one, and nothing.
    """
    config = selected.config
    if not config.training.refit:
        return selected, {}
    optimizer = config.optimizer
    if optimizer.schedule == "cosine":
        # It falls as it did towards the best epoch, which may not be the last.
        epochs = optimizer.schedule_epochs or config.training.epochs
        optimizer = dataclasses.replace(optimizer, schedule_epochs=epochs)
    again = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, join_valid=True),
        optimizer=optimizer,
        training=dataclasses.replace(
            config.training,
            refit=False,
            epochs=progress.best_epoch,
            patience=0,
            selection_metric="loss",
        ),
    )
    request.callback.on_refit(progress.best_epoch)
    folder = None if workdir is None else refit_folder(pathlib.Path(workdir))
    joined, again_request = selected.dataset.joined(), request._replace(callback=Callback())
    final, course = _train(again, folder, joined, again_request)
    return final, {"refit": _course(course)}


def _load(config: Config, show_progress: bool) -> Dataset:
    """Load the data set; the first process prepares it for the others."""
    if not processes.is_first():
        processes.wait_for_all("data prepared")
    dataset = loading.load(config.data, show_progress and processes.is_first())
    if processes.is_first():
        processes.wait_for_all("data prepared")
    return dataset


def with_absolute_paths(config: Config) -> Config:
    """Make the paths of a configuration absolute, so that they hold from any folder."""
    data = config.data
    path = str(pathlib.Path(data.path).expanduser().absolute()) if data.path else ""
    features = data.features
    if data.has_features_file:
        features = str(pathlib.Path(features).expanduser().absolute())
    predefined = data.predefined
    if predefined and pathlib.Path(predefined).expanduser().is_dir():
        predefined = str(pathlib.Path(predefined).expanduser().absolute())
    return dataclasses.replace(
        config,
        data=dataclasses.replace(data, path=path, predefined=predefined, features=features),
    )


def _validation(program: Program, dataset: Dataset) -> Callable[[Params], dict[str, float]]:
    """Build the function that computes the values epochs are selected by.

    These are the validation loss, and the metric that `config.training.selection_metric` names.
    Without a validation split there are none, and the last epoch is kept.
    """
    if not len(dataset.valid):
        return lambda params: {}
    config, placement, model = program.config, program.placement, program.recipe.objective.model
    positives = validation_positives(placement, dataset, config)
    metric = config.training.selection_metric

    def validate(params: Params) -> dict[str, float]:
        values = {"loss": mean_loss(program, params, positives)}
        if metric != "loss":
            _, cutoff = metrics.parse(metric)
            measured = Recommender(config, dataset, model, params, placement).with_evaluation(
                cutoffs=(cutoff,), protocol="full", bootstrap=0, cohorts=0, per_user=False
            )
            values[metric] = measured.evaluate("valid")[metric]
        return values

    return validate

"""A whole run: data, model, training and evaluation."""

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hlr_jax import models
from hlr_jax.config import Config
from hlr_jax.data import datasets
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.files import write_json
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.recommender import (
    Recommender,
    check_cutoffs,
    check_protocol,
    training_positives,
    validation_positives,
)
from hlr_jax.runs.workdir import open_run, refit_folder
from hlr_jax.training import step as training
from hlr_jax.training.loop import MemoryStore, OnEpoch, Progress, Record, Store, fit, ignore_epoch
from hlr_jax.training.objective import Params
from hlr_jax.training.step import Keys


def train(
    config: Config,
    workdir: str | pathlib.Path | None = None,
    dataset: Dataset | None = None,
    show_progress: bool = True,
    on_epoch: OnEpoch = ignore_epoch,
) -> Recommender:
    """Train a model, choose its best epoch on validation, and return it.

    With `config.training.refit` it is then trained anew on training and validation together, for
    as many epochs, and that model is returned.

    Args:
      workdir: where checkpoints, `config.json` and `metrics.jsonl` go; None keeps everything in
        memory. A folder with an unfinished run of the same configuration is resumed.
      dataset: data to use instead of what `config.data` says.
      on_epoch: receives one flat record per epoch, as in `metrics.jsonl`; none of those that
        train anew. What it raises ends the training.

    Raises:
      InputError: configuration, data or working directory cannot be used. Nothing is
        written then.
      DivergedError: the loss is no longer finite.
    """
    selected, progress = _train(config, workdir, dataset, show_progress, on_epoch)
    return _refitted(selected, progress, workdir, show_progress)


def train_and_evaluate(
    config: Config, workdir: str | pathlib.Path, show_progress: bool = True
) -> dict[str, Any]:
    """`train`, then measure the best epoch on validation and test; what `launch/train.py` does.

    Returns:
      What it also writes to `results.json`: model, dataset, split_sizes, train, valid, test.
    """
    selected, progress = _train(config, workdir, None, show_progress)
    final = _refitted(selected, progress, workdir, show_progress)
    dataset = selected.dataset
    drawn = config.sampling
    negatives = dataset.num_items if drawn.pool == "catalogue" else drawn.negatives
    interactions = progress.epochs * len(dataset.train)
    results: dict[str, Any] = {
        "model": config.model.name,
        "dataset": dataset.name,
        "split_sizes": dataset.split_sizes,
        "train": {
            "seconds": round(progress.seconds, 3),
            "epochs": progress.epochs,
            "best_epoch": progress.best_epoch,
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
    results["test"] = final.evaluate("test", show_progress)
    if processes.is_first():
        write_json(pathlib.Path(workdir) / "results.json", results)
    return results


def _train(
    config: Config,
    workdir: str | pathlib.Path | None,
    dataset: Dataset | None,
    show_progress: bool,
    on_epoch: OnEpoch = ignore_epoch,
) -> tuple[Recommender, Progress]:
    if workdir is not None and pathlib.Path(workdir).is_file():
        raise InputError(f"--workdir={workdir}: is a file; name a folder")
    config = with_absolute_paths(config)
    model = models.build(config.model.name, config.model.dim, config.model.options)
    dataset = dataset or _load(config, show_progress)
    check(config, model, dataset)
    placement = Placement.of(config, model, dataset.num_users, dataset.num_items)
    key = Keys.of(config.seed).init
    params = placement.new_params(key, model, config, dataset.num_features)
    if config.training.pretrained:
        params = params | placement.params(pretrained_tables(config, model, dataset))
        params = training.constrain(params, model, config)
    validate = _validation(config, model, dataset, placement)
    store: Store = MemoryStore()
    log: OnEpoch = ignore_epoch
    if workdir is not None:
        store, log = open_run(pathlib.Path(workdir), config, dataset, placement)
    positives = training_positives(placement, dataset, config)

    def tell(record: Record) -> None:
        log(record)
        on_epoch(record)

    best, progress = fit(
        model, placement, params, positives, config, validate, store, tell, show_progress
    )
    return Recommender(config, dataset, model, best, placement), progress


def _refitted(
    selected: Recommender,
    progress: Progress,
    workdir: str | pathlib.Path | None,
    show_progress: bool,
) -> Recommender:
    """The model that was selected, trained anew on validation too if that is wanted."""
    config = selected.config
    if not config.training.refit:
        return selected
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
            config.training, refit=False, epochs=progress.best_epoch, patience=0, select="loss"
        ),
    )
    folder = None if workdir is None else refit_folder(pathlib.Path(workdir))
    return _train(again, folder, selected.dataset.joined(), show_progress)[0]


def _load(config: Config, show_progress: bool) -> Dataset:
    """The data set, which the first process prepares and the others find prepared."""
    if not processes.is_first():
        processes.wait_for_all("data prepared")
    dataset = datasets.load(config.data, show_progress and processes.is_first())
    if processes.is_first():
        processes.wait_for_all("data prepared")
    return dataset


def with_absolute_paths(config: Config) -> Config:
    """The same configuration, which now means the same files from any folder."""
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


def check(config: Config, model: Relation, dataset: Dataset) -> None:
    """Raises InputError for what would fail later, before anything is written."""
    datasets.check(dataset)
    check_cutoffs(config.evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
    length = training.history_length(model, config)
    if length > dataset.num_items:
        raise InputError(
            f"config.sampling.history_length={length}: the catalogue has {dataset.num_items} "
            "items; use at most that"
        )
    if model.uses_neighbours and config.sharding.is_sharded:
        raise InputError(
            f"config.sharding.tables='sharded': model {config.model.name!r} averages rows of all "
            "neighbours; use replicated"
        )
    _check_features(config, model, dataset)
    if config.training.batch_of == "users":
        _check_batches_of_users(config, model, dataset)
    if config.training.refit and not len(dataset.valid):
        raise InputError(
            f"config.training.refit=True: data set {dataset.name} has no validation split to add"
        )
    if config.training.select != "loss":
        _, cutoff = metrics.parse(config.training.select)
        check_cutoffs((cutoff,), dataset, "config.training.select")
        if not len(dataset.valid):
            raise InputError(
                f"config.training.select={config.training.select!r}: data set {dataset.name} "
                "has no validation split to select on"
            )
    evaluation = config.evaluation
    check_protocol(config, dataset)
    if evaluation.cohorts:
        num_users = int(np.count_nonzero(dataset.test.counts))
        metrics.cohort_rows(num_users, evaluation.cohorts, evaluation.cohort_size)


def _check_batches_of_users(config: Config, model: Relation, dataset: Dataset) -> None:
    """Raises InputError where a model's loss is not one of a user's distances alone."""
    field, name = "config.training.batch_of='users'", config.model.name
    if model.uses_history:
        raise InputError(
            f"{field}: model {name!r} reads histories, from which each positive is left out; "
            "set config.training.batch_of='interactions'"
        )
    if type(model).penalty is not Relation.penalty:
        raise InputError(
            f"{field}: model {name!r} adds a penalty to each interaction; set "
            "config.training.batch_of='interactions'"
        )
    users = np.count_nonzero(dataset.train.counts)
    if 4 * config.training.batch_size > users:
        logging.warning(
            "config.training.batch_size=%d: with config.training.batch_of='users' a step takes "
            "that many of %d users; some tens of them train better",
            *(config.training.batch_size, users),
        )


def _check_features(config: Config, model: Relation, dataset: Dataset) -> None:
    """Raises InputError where features of items are missing, unread, or not to be trained on."""
    field = f"config.data.features={config.data.features!r}"
    name = config.model.name
    if not model.uses_features:
        if dataset.features is not None:
            raise InputError(
                f"{field}: model {name!r} reads no features of items; leave them out (of a "
                "Dataset too), or set config.model.name='cmlf'"
            )
        return
    if dataset.features is None:
        raise InputError(
            f"{field}: model {name!r} reads features of items; use own for those of the data set, "
            "or the path of a table"
        )
    if config.optimizer.rows != "all":
        raise InputError(
            f"config.optimizer.rows={config.optimizer.rows!r}: use all, because model {name!r} "
            "moves every item row"
        )
    if config.sharding.is_sharded:
        raise InputError(
            f"config.sharding.tables='sharded': model {name!r} needs all item rows on a device; "
            "use replicated"
        )


def pretrained_tables(config: Config, model: Relation, dataset: Dataset) -> dict[str, jax.Array]:
    """The tables `user` and `item` that `config.training.pretrained` holds.

    That is the working directory of another run on the same data, or an .npz file with
    arrays `user [U, d]` and/or `item [I, d]`, rows in the order of the data set's ids.

    Raises:
      InputError: it cannot be read, or users, items or embedding size differ.
    """
    path = pathlib.Path(config.training.pretrained)
    field = f"config.training.pretrained={str(path)!r}"
    if path.is_dir():
        # What is chosen on validation must not have been trained on it.
        other = Recommender.load(path, refitted=config.data.join_valid)
        for kind in ("user_ids", "item_ids"):
            if not np.array_equal(getattr(other.dataset, kind), getattr(dataset, kind)):
                raise InputError(f"{field}: that run has other {kind}; use one on the same data")
        for part, held_out in (("validation", dataset.valid), ("test", dataset.test)):
            # A split that a data set ships may overlap with itself.
            if _common(other.dataset.train, held_out) > _common(dataset.train, held_out):
                raise InputError(
                    f"{field}: that run was trained on {part} interactions of this one; use one on "
                    "the same split, without config.data.join_valid"
                )
        found = {name: np.asarray(other.params[name]) for name in ("user", "item")}
    else:
        try:
            # Opened here: NumPy leaves a damaged archive open. What is not an archive, an .npy
            # file for one, raises TypeError.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("user", "item") if name in arrays}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{field}: not a run's folder or an .npz file ({error})") from None
    if not found:
        raise InputError(f"{field}: it holds neither an array 'user' nor 'item'")
    sizes = {"user": (dataset.num_users, model.user_width), "item": (dataset.num_items, model.dim)}
    for name, wanted in sizes.items():
        if name in found and found[name].shape != wanted:
            raise InputError(f"{field}: {name} has shape {found[name].shape}, expected {wanted}")
    return {name: jnp.asarray(table, jnp.float32) for name, table in found.items()}


def _common(one: Interactions, two: Interactions) -> int:
    """How many pairs are in both."""
    return len(one) + len(two) - len(one.union(two))


def _validation(
    config: Config, model: Relation, dataset: Dataset, placement: Placement
) -> Callable[[Params], dict[str, float]]:
    """Validation values of parameters: the loss, and the metric that selects if one does.

    Without a validation split there are none, and the last epoch is kept.
    """
    if not len(dataset.valid):
        return lambda params: {}
    positives = validation_positives(placement, dataset, config)
    key, select = Keys.of(config.seed).valid, config.training.select

    def validate(params: Params) -> dict[str, float]:
        values = {"loss": placement.mean_loss(params, positives, key, model, config)}
        if select != "loss":
            _, cutoff = metrics.parse(select)
            measured = Recommender(config, dataset, model, params, placement).with_evaluation(
                cutoffs=(cutoff,), protocol="full", bootstrap=0, cohorts=0, per_user=False
            )
            values[select] = measured.evaluate("valid")[select]
        return values

    return validate

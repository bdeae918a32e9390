"""Check which fields of a configuration go together, and with which model and data."""

import numpy as np
from absl import logging

from hlr_jax.config import Config, ModelConfig, build
from hlr_jax.config.values import require
from hlr_jax.data.dataset import Dataset, check_trainable
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.evaluation.evaluate import check_cutoffs, check_protocol
from hlr_jax.kernels.sizes import is_cpu
from hlr_jax.models.relation import Relation
from hlr_jax.registry import is_own
from hlr_jax.sampling.samplers import Sampler, build_sampler
from hlr_jax.training.inputs import history_length

# Fewer targets than this, of a step of users, are warned of.
FEW_TARGETS = 64


def check_config(config: Config) -> None:
    """Raise InputError where fields do not go together, whatever the data."""
    for penalty in ("covariance", "uniformity"):
        _check_penalty(config, penalty)
    require(
        not (config.training.refit and config.data.join_valid),
        "training.refit",
        config.training.refit,
        "with config.data.join_valid=True there is nothing to add; set one of them to False",
    )
    components = build.build_all(config)
    _check_order(config, components[0])
    if config.training.batch_of == "users":
        _check_batches_of_users(config)
    if not all(map(is_own, components)):
        from hlr_jax.runs import probes  # Which takes its time to import.

        probes.check(config)


def _check_order(config: Config, model: Relation) -> None:
    """Raise InputError where histories in order of time are needed, or would know the future."""
    field, kind = "sampling.history", config.sampling.history
    require(
        kind == "recent" or not model.reads_order,
        field,
        kind,
        f"model {config.model.name!r} reads which items came last; use recent, with "
        "config.data.keep_times=True",
    )
    require(
        not model.uses_history or kind != "recent" or config.training.batch_of != "users",
        "training.batch_of",
        "users",
        "a user's positives share its history, and with config.sampling.history='recent' it would "
        "hold what came after most of them; use interactions",
    )


def _check_penalty(config: Config, name: str) -> None:
    """Raise InputError where a penalty on whole tables meets updates of a part of their rows."""
    weight = getattr(config.loss, name)
    require(
        config.optimizer.updates == "dense" or not weight,
        "optimizer.updates",
        config.optimizer.updates,
        f"use dense, because config.loss.{name} moves rows that the batch does not use",
    )
    require(
        not (config.sharding.is_sharded and weight),
        f"loss.{name}",
        weight,
        "it needs all rows on a device; set config.sharding.tables='replicated'",
    )


def check(config: Config, model: Relation, dataset: Dataset) -> None:
    """Raise InputError for what would fail later, before anything is written."""
    check_trainable(dataset)
    model.check_devices()
    check_cutoffs(config.evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
    length = history_length(model, config)
    if length > dataset.num_items:
        raise InputError(
            f"config.sampling.history_length={length}: the catalogue has {dataset.num_items} "
            "items; use at most that"
        )
    if length and config.sampling.history == "recent" and not dataset.train.has_times:
        raise InputError(
            f"config.sampling.history='recent': it is not known which interactions of data set "
            f"{dataset.name} came first; set config.data.keep_times=True"
        )
    if model.uses_neighbours and config.sharding.is_sharded:
        raise InputError(
            f"config.sharding.tables='sharded': model {config.model.name!r} averages rows of all "
            "neighbours; use replicated"
        )
    _check_features(config, model, dataset)
    _check_held_out_users(config, model, dataset)
    if config.training.matmul_precision != "default" and is_cpu():
        logging.warning(
            "config.training.matmul_precision=%r changes nothing on a CPU, whose products are "
            "float32",
            config.training.matmul_precision,
        )
    if config.training.batch_of == "users":
        _warn_of_many_users(config, dataset)
        _check_targets(config, dataset)
    _check_validation(config, dataset)
    check_protocol(config, dataset)
    if config.evaluation.cohorts:
        num_users = int(np.count_nonzero(dataset.test.counts))
        metrics.cohort_rows(num_users, config.evaluation.cohorts, config.evaluation.cohort_size)


def _check_validation(config: Config, dataset: Dataset) -> None:
    """Raise InputError where a validation split is needed and there is none."""
    if config.training.refit and not len(dataset.valid):
        raise InputError(
            f"config.training.refit=True: data set {dataset.name} has no validation split to add; "
            "set it to False, or config.data.valid_fraction above 0"
        )
    metric = config.training.selection_metric
    if metric == "loss":
        return
    _, cutoff = metrics.parse(metric)
    check_cutoffs((cutoff,), dataset, "config.training.selection_metric")
    if not len(dataset.valid):
        raise InputError(
            f"config.training.selection_metric={metric!r}: data set {dataset.name} "
            "has no validation split to select on; use loss, or set config.data.valid_fraction "
            "above 0"
        )


def _check_held_out_users(config: Config, model: Relation, dataset: Dataset) -> None:
    """Refuse models that know nothing of users they were not trained on; warn of poor ones."""
    if not len(dataset.given) or not model.user_width:
        return
    names = build.registry("model").names()
    able = [name for name in names if not _built(config, name).user_width]
    remedy = ", ".join([*(f"config.model.name={name!r}" for name in able), "the baseline ease"])
    fault = (
        f"config.model.name={config.model.name!r}: it has a row for each user, and those of the "
        f"users that data set {dataset.name} holds out are never trained"
    )
    if not model.uses_history:
        raise InputError(f"{fault}; use {remedy}, or another config.data.split")
    if config.training.selection_metric == "loss" and len(dataset.valid):
        raise InputError(
            f"config.training.selection_metric='loss': {fault}; select by a metric, as ndcg@10"
        )
    logging.warning("%s; with their histories these rank them poorly: use %s", *(fault, remedy))


def _built(config: Config, name: str) -> Relation:
    """Build the model of that name with its default options."""
    return build.build_model(Config(model=ModelConfig(name), imports=config.imports))


def _check_batches_of_users(config: Config) -> None:
    """Raise InputError where users cannot be taken with all of their interactions."""
    field = "training.batch_of"
    sampler = build_sampler(config)
    samplers = build.registry("sampling")
    names = [name for name in samplers.names() if _has_targets(samplers.get(name))]
    require(
        _has_targets(type(sampler)),
        field,
        "users",
        "the users of a step share the items that they are measured against; set "
        f"config.sampling.negatives to one of {', '.join(names)}",
    )
    require(
        not config.loss.copy_relation,
        field,
        "users",
        "a user's positives share its negatives; set config.loss.copy_relation=False",
    )


def _warn_of_many_users(config: Config, dataset: Dataset) -> None:
    """Warn where a step takes a large part of all users."""
    users = np.count_nonzero(dataset.train.counts)
    if 4 * config.training.batch_size > users:
        logging.warning(
            "config.training.batch_size=%d: with config.training.batch_of='users' a step takes "
            "that many of %d users; some tens of them train better",
            *(config.training.batch_size, users),
        )


def _check_targets(config: Config, dataset: Dataset) -> None:
    """Raise InputError for more targets than items, and warn of few."""
    sampler = build_sampler(config)
    number = sampler.num_negatives_of(dataset.num_items)
    if number > dataset.num_items:
        raise InputError(
            f"config.sampling.num_negatives={number}: the catalogue has {dataset.num_items} items; "
            "use fewer, or config.sampling.negatives='full_catalog'"
        )
    if number < FEW_TARGETS and not sampler.is_full_catalog:
        logging.warning(
            "config.sampling.num_negatives=%d: with config.training.batch_of='users' a step counts "
            "only those positives that are among so many of %d items; use hundreds",
            *(number, dataset.num_items),
        )


def _has_targets(sampler: type[Sampler]) -> bool:
    return sampler.targets is not Sampler.targets


def _check_features(config: Config, model: Relation, dataset: Dataset) -> None:
    """Raise InputError where features of items are missing, unread, or not to be trained on."""
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
    if config.optimizer.updates != "dense":
        raise InputError(
            f"config.optimizer.updates={config.optimizer.updates!r}: use dense, because model "
            f"{name!r} moves every item row"
        )
    if config.sharding.is_sharded:
        raise InputError(
            f"config.sharding.tables='sharded': model {name!r} needs all item rows on a device; "
            "use replicated"
        )

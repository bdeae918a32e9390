"""What training reads: interactions where the devices want them, and the batches of an epoch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from hlr_jax.config import Config, build
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling import epoch_order
from hlr_jax.sampling.batches import Drawing
from hlr_jax.sampling.histories import history_choice
from hlr_jax.sampling.samplers import Sampler, build_sampler
from hlr_jax.sampling.sources import (
    DeviceInteractions,
    SamplingSource,
    Source,
    TripletSource,
    UserSource,
    union_of_splits,
)
from hlr_jax.sampling.stacking import equalize, once, sizes
from hlr_jax.training.epoch import EpochRows, Recipe
from hlr_jax.training.objective import Covariance, FeaturesPenalty, Objective, Regularizer
from hlr_jax.training.optimizers import NamedOptimizer, Optimizer, frozen_tables


class Positives(NamedTuple):
    """Positive interactions, or users with all of theirs, where a placement wants them.

    Attributes:
      source: with a leading axis of devices where users are sharded.
      bounds: `[parts + 1]` the first row of the source of each part of the users, and their number.
    """

    source: Source
    bounds: Int[np.ndarray, "parts_plus_1"]

    def __len__(self) -> int:
        return int(self.bounds[-1])


def make_objective(
    config: Config, model: Relation, num_items: int, features: Float[np.ndarray, "i f"] | None
) -> Objective:
    """Build what a configuration wants minimised.

    Args:
      features: of items, where the data set has any.
    """
    regularizers: list[Regularizer] = []
    if config.loss.covariance:
        regularizers.append(Covariance(config.loss.covariance, config.loss.covariance_form))
    if model.uses_features and features is not None:
        regularizers.append(FeaturesPenalty(np.asarray(features, np.float32)))
    return Objective(
        model,
        build.build_loss(config),
        tuple(regularizers),
        num_items=num_items,
        copy_relation=config.loss.copy_relation,
        reduction=config.loss.reduction,
        frozen=frozen_tables(config),
    )


def make_recipe(
    config: Config, objective: Objective, steps_per_epoch: int, given: Optimizer | None = None
) -> Recipe:
    """Build what a step does.

    Args:
      given: an optimizer instead of the one that the configuration names.
    """
    drawing = Drawing(
        build_sampler(config),
        config.loss.user_weight_exponent,
        history_length=history_length(objective.model, config),
    )
    optimizer = given or NamedOptimizer.of(config, steps_per_epoch)
    return Recipe(objective, drawing, optimizer, is_sparse=config.optimizer.updates == "sparse")


def history_length(model: Relation, config: Config) -> int:
    """Choose `P` for this model: 0 if it reads no history."""
    return config.sampling.history_length if model.uses_history else 0


def training_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """Put training interactions, or the users who have some, where the devices want them."""
    sampler = build_sampler(config)

    def source_of(users: slice) -> Source:
        train = dataset.train.part(users)
        base = _sampling_source(config, sampler, dataset, train, train)
        if config.training.batch_of == "users":
            return UserSource.of_training(base, train)
        return TripletSource.of_training(base, train, int(dataset.train.offsets[users.start]))

    return _placed(placement, _rows_before(dataset.train, config), source_of)


def validation_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """Put validation interactions, or the users who have some, where the devices want them.

    Raises:
      InputError: a validation pair is also a training pair.
    """
    sampler = build_sampler(config)

    def source_of(users: slice) -> Source:
        train, valid = dataset.train.part(users), dataset.valid.part(users)
        seen = union_of_splits(train, valid)
        base = _sampling_source(config, sampler, dataset, train, seen)
        if config.training.batch_of == "users":
            return UserSource.of_validation(base, valid)
        return TripletSource.of_validation(base, valid, int(dataset.valid.offsets[users.start]))

    return _placed(placement, _rows_before(dataset.valid, config), source_of)


def _sampling_source(
    config: Config,
    sampler: Sampler,
    dataset: Dataset,
    train: Interactions,
    seen: Interactions,
) -> SamplingSource:
    history = DeviceInteractions.of(train)
    return SamplingSource(
        history,
        history if seen is train else DeviceInteractions.of(seen),
        history_choice(config.sampling.history, dataset.popularity),
        sampler.prepare(dataset.popularity, seen),
        dataset.num_items,
    )


def _rows_before(positives: Interactions, config: Config) -> Int[np.ndarray, "u_plus_1"]:
    """Count the rows of a source that belong to users before each user."""
    by_user = config.training.batch_of == "users"
    return np.append(0, np.cumsum(positives.counts > 0)) if by_user else positives.offsets


def _placed(
    placement: Placement,
    rows_before: Int[np.ndarray, "u_plus_1"],
    source_of: Callable[[slice], Source],
) -> Positives:
    """Put sources where the devices want them.

    Args:
      rows_before: of the source of all, how many are of users before each, and of all.
      source_of: the source of consecutive users, numbered from 0.
    """
    bounds = np.asarray(rows_before)[placement.part_bounds]
    if not placement.layout.user:
        source = source_of(slice(0, placement.num_users))
        return Positives(jax.tree.map(once(placement.put), source), bounds)
    sources = [source_of(placement.users_of(number)) for number in placement.own_devices]
    most = [int(size) for size in processes.largest(*sizes(sources))]
    join = once(lambda *parts: placement.join(parts))
    return Positives(jax.tree.map(join, *equalize(sources, most)), bounds)


def shuffled_rows(
    placement: Placement, positives: Positives, batch_size: int, key: Key[Array, ""]
) -> EpochRows:
    """Shuffle the rows of an epoch, and give each device its part of every batch.

    Args:
      key: of the epoch: decides the order and what is drawn.
    """
    order_key, draw_key = jax.random.split(key)
    order = _shuffled_order(placement, positives, batch_size, order_key)
    return EpochRows(positives.source, order, draw_key)


def _shuffled_order(
    placement: Placement, positives: Positives, batch_size: int, key: Key[Array, ""]
) -> Array:
    bounds = positives.bounds
    if placement.layout.user:
        groups, wanted = placement.parts_of_devices, placement.own_devices
        rows = epoch_order.orders_by_part(key, bounds, batch_size, groups, wanted)
        return placement.join(list(rows))
    if placement.parts == 1:
        batches = epoch_order.epoch_order(key, len(positives), batch_size)
    else:
        whole = [slice(0, placement.parts)]
        batches = epoch_order.orders_by_part(key, bounds, batch_size, whole, [0])[0]
    return _divided(placement, batches)


def ordered_rows(
    placement: Placement, positives: Positives, batch_size: int, key: Key[Array, ""]
) -> EpochRows:
    """Take every row once, in order, and give each device its part."""
    batch_size = min(batch_size, len(positives))
    if not placement.layout.user:
        batches = epoch_order.in_batches(np.arange(len(positives)), batch_size)
        return EpochRows(positives.source, _divided(placement, batches), key)
    counts = [
        int(positives.bounds[group.stop] - positives.bounds[group.start])
        for group in placement.parts_of_devices
    ]
    size = -(-batch_size // placement.num_devices)
    steps = max(1, -(-max(counts) // size))
    batches = np.full((len(counts), steps * size), -1, np.int32)
    for row, number in zip(batches, counts, strict=True):
        row[:number] = np.arange(number)
    of_devices = batches.reshape(len(counts), steps, size)
    order = placement.join([of_devices[number] for number in placement.own_devices])
    return EpochRows(positives.source, order, key)


def _divided(placement: Placement, batches: Int[np.ndarray, "steps b"]) -> Array:
    """Divide batches between all devices in order."""
    of_devices = epoch_order.split(batches, placement.num_devices)
    return placement.join([of_devices[number] for number in placement.own_devices])

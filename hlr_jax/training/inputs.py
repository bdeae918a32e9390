"""What training reads: interactions where the devices want them, and the batches of an epoch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from hlr_jax.config import Config, build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.layout import on_each_device, spec
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
from hlr_jax.training.objective import (
    Covariance,
    FeaturesPenalty,
    Objective,
    Regularizer,
    Uniformity,
)
from hlr_jax.training.optimizers import NamedOptimizer, Optimizer, frozen_tables
from hlr_jax.training.state import Keys

# Of `config.training.matmul_precision`, by JAX's names; "" leaves it to JAX's configuration.
_PRECISIONS = {"default": "", "float32": "float32", "bfloat16": "BF16_BF16_F32"}


@dataclasses.dataclass(frozen=True)
class Positives:
    """Positive interactions, or users with all of theirs, where a placement wants them.

    Attributes:
      placement: which devices have them.
      source: with a leading axis of devices where users are sharded.
      bounds: `[parts + 1]` the first row of the source of each part of the users, and their number.
    """

    placement: Placement
    source: Source
    bounds: Int[np.ndarray, "parts_plus_1"]
    _known_places: dict[int, Array] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def places(self, batch_size: int) -> Int[Array, "devices steps b"]:
        """Find the places of an epoch's order that each device takes in each step, once."""
        if batch_size not in self._known_places:
            self._known_places[batch_size] = _places(self, batch_size)
        return self._known_places[batch_size]


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
    if config.loss.uniformity:
        key = jax.random.key_data(Keys.of(config.seed).penalty)
        regularizers.append(Uniformity(config.loss.uniformity, np.asarray(key)))
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
    config: Config,
    objective: Objective,
    dataset: Dataset,
    steps_per_epoch: int,
    given: Optimizer | None = None,
) -> Recipe:
    """Build what a step does.

    Args:
      dataset: what is trained on.
      given: an optimizer instead of the one that the configuration names.
    """
    drawing = Drawing(
        build_sampler(config),
        config.loss.user_weight_exponent,
        history_length=history_length(objective.model, config),
    )
    counts = {"user": dataset.train.counts, "item": dataset.popularity}
    optimizer = given or NamedOptimizer.of(config, steps_per_epoch, counts)
    return Recipe(
        objective,
        drawing,
        optimizer,
        is_sparse=config.optimizer.updates == "sparse",
        matmul_precision=_PRECISIONS[config.training.matmul_precision],
        is_deterministic=config.training.deterministic,
    )


def history_length(model: Relation, config: Config) -> int:
    """Choose `P` for this model: 0 if it reads no history."""
    return config.sampling.history_length if model.uses_history else 0


def training_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """Put training interactions, or the users who have some, where the devices want them."""
    sampler, rows_before = build_sampler(config), _rows_before(dataset.train, config)

    def source_of(users: slice) -> Source:
        train = dataset.train.part(users)
        base = _sampling_source(config, sampler, dataset, train, train)
        if config.training.batch_of == "users":
            return UserSource.of_training(base, train, int(rows_before[users.start]))
        return TripletSource.of_training(base, train, int(dataset.train.offsets[users.start]))

    return _placed(placement, rows_before, source_of)


def validation_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """Put validation interactions, or the users who have some, where the devices want them.

    Raises:
      InputError: a validation pair is also a training pair, or given.
    """
    sampler, rows_before = build_sampler(config), _rows_before(dataset.valid, config)

    def source_of(users: slice) -> Source:
        known, valid = dataset.known("valid", users), dataset.valid.part(users)
        seen = union_of_splits(known, valid)
        base = _sampling_source(config, sampler, dataset, known, seen)
        if config.training.batch_of == "users":
            return UserSource.of_validation(base, valid, int(rows_before[users.start]))
        return TripletSource.of_validation(base, valid, int(dataset.valid.offsets[users.start]))

    return _placed(placement, rows_before, source_of)


def _sampling_source(
    config: Config,
    sampler: Sampler,
    dataset: Dataset,
    known: Interactions,
    seen: Interactions,
) -> SamplingSource:
    history = DeviceInteractions.of(known)
    return SamplingSource(
        history,
        history if seen is known else DeviceInteractions.of(seen),
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
        return Positives(placement, jax.tree.map(once(placement.put), source), bounds)
    sources = [source_of(placement.users_of(number)) for number in placement.own_devices]
    most = [int(size) for size in processes.largest(*sizes(sources))]
    join = once(lambda *parts: placement.join(parts))
    return Positives(placement, jax.tree.map(join, *equalize(sources, most)), bounds)


def shuffled_rows(positives: Positives, batch_size: int, key: Key[Array, ""]) -> EpochRows:
    """Shuffle the rows of an epoch, and give each device its part of every batch.

    Drawn on the devices; the host waits for no row.

    Args:
      key: of the epoch: decides the order and what is drawn.
    """
    order_key, draw_key = jax.random.split(key)
    placement = positives.placement
    firsts = [positives.bounds[group.start] for group in placement.parts_of_devices]
    order = _shuffled_order(
        np.asarray(jax.random.key_data(order_key)),
        positives.places(batch_size),
        np.asarray(positives.bounds, np.int32),
        np.asarray(firsts if placement.layout.user else np.zeros(len(firsts)), np.int32),
        placement.mesh,
    )
    return EpochRows(positives.source, order, draw_key)


@functools.partial(jax.jit, static_argnames="mesh")
def _shuffled_order(
    key_data: Array,
    places: Int[Array, "devices steps b"],
    bounds: Int[Array, "parts_plus_1"],
    firsts: Int[Array, "devices"],
    mesh: Mesh,
) -> Int[Array, "devices steps b"]:
    """Draw the rows at each device's places, counted from the first row of its source."""

    def of_device(data: Any, places: Any, bounds: Any, first: Any) -> Any:
        rows = epoch_order.shuffled(jax.random.wrap_key_data(data), places[0], bounds)
        return jnp.where(rows < 0, -1, rows - first[0])[None]

    everywhere, apart = spec(()), spec(mesh.axis_names)
    in_specs = everywhere, apart, everywhere, apart
    return on_each_device(of_device, mesh, in_specs, apart)(key_data, places, bounds, firsts)


def _places(positives: Positives, batch_size: int) -> Array:
    placement, bounds = positives.placement, positives.bounds
    if placement.layout.user:
        groups, wanted = placement.parts_of_devices, placement.own_devices
        return placement.join(list(epoch_order.places_by_part(bounds, batch_size, groups, wanted)))
    if placement.parts == 1:
        places = epoch_order.in_batches(np.arange(len(positives)), batch_size)
    else:
        whole = [slice(0, placement.parts)]
        places = epoch_order.places_by_part(bounds, batch_size, whole, [0])[0]
    return _divided(placement, places)


def ordered_rows(positives: Positives, batch_size: int, key: Key[Array, ""]) -> EpochRows:
    """Take every row once, in order, and give each device its part."""
    placement = positives.placement
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

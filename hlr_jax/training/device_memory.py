"""Say which batch would fit, where one did not fit into the memory of a device."""

import contextlib
import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from hlr_jax.config import Config
from hlr_jax.errors import InputError
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import EVERYWHERE, Placement
from hlr_jax.training.epoch import EpochRows, Recipe, train_steps_sharded
from hlr_jax.training.state import TrainState


def is_exhausted(error: Exception) -> bool:
    """Tell whether a device had too little memory for a program."""
    return "RESOURCE_EXHAUSTED" in str(error)


def shapes_of(tree: Any, placement: Placement) -> Any:
    """Describe arrays by shapes, types and shardings, in the same tree."""

    def described(x: Any) -> jax.ShapeDtypeStruct:
        # What is on one device, and not bound to it, goes to all.
        is_placed = isinstance(x.sharding, NamedSharding)
        sharding = x.sharding if is_placed else placement.sharding(EVERYWHERE)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(described, tree)


def room_for_steps(state: TrainState, placement: Placement) -> int | None:
    """Count the bytes that a step may hold on a device, if it tells how many it has.

    That is what it has left, but for what checkpoints copy: a state, and its parameters twice.
    """
    free = devices.free_bytes(placement.mesh.local_devices[0].memory_stats())

    def held(tree: Any) -> int:
        shards = ((x.sharding.shard_shape(x.shape), x.dtype) for x in jax.tree.leaves(tree))
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shards)

    return None if free is None else free - held(state) - 2 * held(state.params)


def too_large(
    program: tuple[Config, Placement],
    shapes: TrainState,
    rows: EpochRows,
    recipe: Recipe,
    room: int | None,
) -> InputError:
    """Explain that a step's batch does not fit, and name the largest that does.

    What a step holds beside its arguments grows by the same for each row of a batch. It is what
    XLA says of two smaller batches, for each of which a program is compiled.

    Args:
      program: the configuration, and where it runs.
      shapes: of the state, which the program that did not fit may have taken over.
      rows, recipe: its other arguments.
      room: `room_for_steps`, before the program was called.
    """
    config, placement = program
    batch_size = config.training.batch_size
    field = f"config.training.batch_size={batch_size}"
    shorter = ", a shorter config.sampling.history_length" if recipe.drawing.history_length else ""
    fits = 0
    remedy = f"use a smaller batch{shorter} or more devices (config.sharding.tables='sharded')"
    if room is not None and batch_size >= 4:
        sizes = batch_size // 2, batch_size // 4
        # A compiler that refuses these too says nothing of what fits.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            large, small = (_held(size, placement, shapes, rows, recipe) for size in sizes)
            each = max(1, (large - small) // (sizes[0] - sizes[1]))
            fits = min(batch_size - 1, sizes[1] + (room - small) // each)
        if fits >= 1:
            remedy = f"use at most {fits}{' or' if shorter else ''}{shorter.removeprefix(',')}"
    return InputError(f"{field}: a step does not fit into the memory of a device; {remedy}")


def _held(
    batch_size: int, placement: Placement, shapes: TrainState, rows: EpochRows, recipe: Recipe
) -> int:
    """Ask XLA how many bytes a step with this batch size holds beside its arguments."""
    each = -(-batch_size // placement.num_devices)
    of_rows = shapes_of(rows, placement)
    order = jax.ShapeDtypeStruct(
        (*rows.order.shape[:2], each), rows.order.dtype, sharding=rows.order.sharding
    )
    of_rows = of_rows._replace(order=order)
    program = train_steps_sharded().lower(
        shapes, of_rows, (0, 0), shapes_of(recipe, placement), placement.layout, placement.mesh
    )
    return int(program.compile().memory_analysis().temp_size_in_bytes)

"""Say which batch would fit, where one did not fit into the memory of a device."""

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


def too_large(
    config: Config, placement: Placement, state: TrainState, rows: EpochRows, recipe: Recipe
) -> InputError:
    """Explain that a step's batch does not fit, and name the largest that does.

    What a step holds beside its arguments grows by the same for each row of a batch. It is what
    XLA says of two smaller batches, for each of which a program is compiled.

    Args:
      state: shapes of it, which the program that did not fit may have taken over.
      rows, recipe: its other arguments.
    """
    batch_size = config.training.batch_size
    field = f"config.training.batch_size={batch_size}"
    shorter = ", a shorter config.sampling.history_length" if recipe.drawing.history_length else ""
    remedy = f"use a smaller batch{shorter} or more devices (config.sharding.tables='sharded')"
    free = devices.free_bytes(placement.mesh.local_devices[0].memory_stats())
    if free is not None and batch_size >= 4:
        sizes = batch_size // 2, batch_size // 4
        large, small = (_held(size, placement, state, rows, recipe) for size in sizes)
        each = max(1, (large - small) // (sizes[0] - sizes[1]))
        fits = min(batch_size - 1, sizes[1] + (free - small) // each)
        if fits >= 1:
            remedy = f"use at most {fits}{' or' if shorter else ''}{shorter.removeprefix(',')}"
    return InputError(f"{field}: a step does not fit into the memory of a device; {remedy}")


def _held(
    batch_size: int, placement: Placement, state: TrainState, rows: EpochRows, recipe: Recipe
) -> int:
    """Ask XLA how many bytes a step with this batch size holds beside its arguments."""
    each = -(-batch_size // placement.num_devices)
    of_rows = shapes_of(rows, placement)
    order = jax.ShapeDtypeStruct(
        (*rows.order.shape[:2], each), rows.order.dtype, sharding=rows.order.sharding
    )
    of_rows = of_rows._replace(order=order)
    program = train_steps_sharded().lower(
        state, of_rows, (0, 0), shapes_of(recipe, placement), placement.layout, placement.mesh
    )
    return int(program.compile().memory_analysis().temp_size_in_bytes)

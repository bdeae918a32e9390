"""The steps of an epoch as one compiled program, sampling included; and the loss of a split.

`train_steps_sharded`, `jit` of `shard_map`, is the implementation: on devices of all processes,
with tables that are replicated or sharded. `train_steps` is the same by `pmap`, for the cores of
one process, each with everything; `jit` alone can say how XLA is to compile for an accelerator.
"""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from hlr_jax.kernels.sizes import is_cpu
from hlr_jax.parallel import devices
from hlr_jax.parallel.layout import REPLICATED, Layout, on_each_device, spec
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.batches import Drawing, draw_batch
from hlr_jax.sampling.sources import Source
from hlr_jax.training.exchange import DenseExchange, Exchange, SparseExchange, fetch_for
from hlr_jax.training.neighbours import neighbours_for
from hlr_jax.training.objective import Objective
from hlr_jax.training.optimizers import Optimizer
from hlr_jax.training.rows import loss_of_batch
from hlr_jax.training.state import TrainState, state_specs
from hlr_jax.training.step import train_step
from hlr_jax.types import Params


class Recipe(struct.PyTreeNode):
    """Everything that decides what a step does. Its numbers are traced.

    Attributes:
      objective: what is minimised.
      drawing: how batches are drawn.
      optimizer: how parameters follow the gradient.
      is_sparse: whether a step updates only the rows that its batch uses.
      matmul_precision: of a step's matrix products, as JAX calls it; "" is what JAX is set to.
      is_deterministic: whether steps give the same bits each time on a GPU too.
    """

    objective: Objective
    drawing: Drawing
    optimizer: Optimizer
    is_sparse: bool = struct.field(pytree_node=False, default=False)
    matmul_precision: str = struct.field(pytree_node=False, default="")
    is_deterministic: bool = struct.field(pytree_node=False, default=False)

    def exchange(self, params: Params, layout: Layout) -> Exchange:
        """Choose which rows steps update, before the first one."""
        return SparseExchange.of(params, layout) if self.is_sparse else DenseExchange(layout)

    def slowed(self, factor: float) -> "Recipe":
        """Multiply all learning rates."""
        return self.replace(optimizer=self.optimizer.slowed(factor))


class EpochRows(NamedTuple):
    """What the batches of an epoch are drawn from.

    Attributes:
      source: with a leading axis of devices where users are sharded.
      order: `[devices, steps, b]`; rows of the source for each step, a part of every batch for
        each device; -1 is padding. What is drawn for a row does not depend on how many parts there
        are.
      key: of the epoch.
    """

    source: Source
    order: Int[Array, "devices steps b"]
    key: Key[Array, ""]


# First step, and the one after the last. Not static: one compilation serves any part of an epoch.
Span = tuple[Any, Any]


def _steps(
    state: TrainState, rows: EpochRows, span: Span, recipe: Recipe, layout: Layout
) -> TrainState:
    """Take the steps of a span on each device; `order` is its own, `[steps, b]`.

    The first step whose loss is not finite is the last, so that the state tells which it was and
    what it was left with.
    """
    source, order, key = rows
    first, stop = span
    neighbours = neighbours_for(recipe.objective.model, source.history, source.num_items)

    Carry = tuple[Array, TrainState, Exchange]

    def is_on(carry: Carry) -> Array:
        step, state, _ = carry
        return (step < stop) & jnp.isfinite(state.loss_sum)

    def one(carry: Carry) -> Carry:
        step, state, exchange = carry
        batch = draw_batch(recipe.drawing, source, order[step], key, step, layout.batch)
        parts = recipe.objective, recipe.optimizer, exchange, neighbours
        return step + 1, *train_step(state, batch, *parts)

    start = first, state, recipe.exchange(state.params, layout)
    chosen = recipe.matmul_precision
    with jax.default_matmul_precision(chosen) if chosen else contextlib.nullcontext():
        return jax.lax.while_loop(is_on, one, start)[1]


@functools.partial(
    jax.pmap,
    axis_name=REPLICATED.batch[0],
    in_axes=(None, EpochRows(None, 0, None), None, None),  # type: ignore[arg-type]
    out_axes=None,
    donate_argnums=0,
)
def train_steps(state: TrainState, rows: EpochRows, span: Span, recipe: Recipe) -> TrainState:
    """Take the steps of a span on the devices of one process; the state is donated."""
    return _steps(state, rows, span, recipe, REPLICATED)


def _steps_on_mesh(
    state: TrainState, rows: EpochRows, span: Span, recipe: Recipe, layout: Layout, mesh: Mesh
) -> TrainState:
    """Take the steps of a span on a mesh of devices of all processes, whose tables may be sharded.

    Args:
      state: spread as `state_specs` says.
    """
    specs = state_specs(state, recipe.optimizer, layout)

    def of_device(state: Any, rows: Any, span: Any, recipe: Any) -> Any:
        return _steps(state, _own_part(rows, layout), span, recipe, layout)

    in_specs = specs, _rows_specs(layout), spec(()), spec(())
    return on_each_device(of_device, mesh, in_specs, specs)(state, rows, span, recipe)


@functools.cache
def train_steps_sharded(is_deterministic: bool = False) -> Any:
    """Compile `_steps_on_mesh` as the devices there are want it; the state is donated."""
    return jax.jit(
        _steps_on_mesh,
        static_argnames=("layout", "mesh"),
        donate_argnames="state",
        compiler_options={**devices.step_options(), **devices.same_bits_options(is_deterministic)},
    )


def advance(
    state: TrainState, rows: EpochRows, span: Span, recipe: Recipe, placement: Placement
) -> TrainState:
    """Take the steps of a span, wherever the state is; it is donated."""
    if placement.is_one_process and is_cpu():
        return train_steps(state, rows, span, recipe)
    take = train_steps_sharded(recipe.is_deterministic)
    return take(state, rows, span, recipe, placement.layout, placement.mesh)


def sum_of_loss(
    params: Params, rows: EpochRows, recipe: Recipe, layout: Layout, mesh: Mesh
) -> Float[Array, "2"]:
    """Sum the loss over an epoch's batches, and count the terms it is the weighted sum of."""
    return _loss_summer(recipe.is_deterministic)(params, rows, recipe, layout, mesh)


@functools.cache
def _loss_summer(is_deterministic: bool) -> Any:
    """Compile `_sum_of_loss` as the devices there are want it."""
    return jax.jit(
        _sum_of_loss,
        static_argnames=("layout", "mesh"),
        compiler_options=devices.same_bits_options(is_deterministic),
    )


def _sum_of_loss(
    params: Params, rows: EpochRows, recipe: Recipe, layout: Layout, mesh: Mesh
) -> Float[Array, "2"]:

    def of_device(params: Any, rows: Any, recipe: Recipe) -> Any:
        source, order, key = _own_part(rows, layout)
        model = recipe.objective.model
        neighbours = neighbours_for(model, source.history, source.num_items)
        read = neighbours.widened(model, params)

        def add(step: Array, sums: Array) -> Array:
            # As in step 0: which step has which rows depends on the number of devices.
            batch = draw_batch(recipe.drawing, source, order[step], key, 0, layout.batch)
            fetched, batch = fetch_for(read, batch, layout)
            return sums + loss_of_batch(recipe.objective, fetched, batch)

        return jax.lax.psum(jax.lax.fori_loop(0, len(order), add, jnp.zeros(2)), layout.batch)

    in_specs = layout.of_params(params), _rows_specs(layout), spec(())
    return on_each_device(of_device, mesh, in_specs, spec(()))(params, rows, recipe)


def _rows_specs(layout: Layout) -> EpochRows:
    return EpochRows(spec(layout.user), spec(layout.batch), spec(()))  # type: ignore[arg-type]


def _own_part(rows: EpochRows, layout: Layout) -> EpochRows:
    """Take a device's own source and order, out of those of all; runs on the device."""
    source = jax.tree.map(lambda x: x[0], rows.source) if layout.user else rows.source
    return EpochRows(source, rows.order[0], rows.key)

"""Measure how the program of an epoch is made: command buffers, drawing, precision."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.gpu_sections import NAMES, made_up, seconds_of, shape_of, step_seconds
from benchmarks.speed.sections import Reporter, section
from benchmarks.speed.trainers import LibraryTrainer, config_of
from hlr_jax.kernels import sizes as kernel_sizes
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling import epoch_order
from hlr_jax.sampling.batches import Drawing, draw_batch
from hlr_jax.sampling.sources import Source
from hlr_jax.training import epoch
from hlr_jax.training.state import TrainState
from hlr_jax.types import Batch

_BATCH_SIZE, _LARGE_BATCH_SIZE = 1000, 16_384
_PRECISIONS = ("default", "float32", "bfloat16")


def _options() -> dict[str, dict[str, str]]:
    """List how XLA may compile a loop over steps; what may fail comes last."""
    return {"XLA's defaults": {}, "one command buffer": devices.step_options()}


def _steps_compiled(options: Mapping[str, str | bool]) -> Callable[..., TrainState]:
    """Return what takes the steps of a span, as `epoch.advance` does, compiled so."""
    steps = jax.jit(
        epoch._steps_on_mesh,
        static_argnames=("layout", "mesh"),
        donate_argnames="state",
        compiler_options=dict(options),
    )

    def advance(
        state: TrainState,
        rows: epoch.EpochRows,
        span: epoch.Span,
        recipe: epoch.Recipe,
        placement: Placement,
    ) -> TrainState:
        return steps(state, rows, span, recipe, placement.layout, placement.mesh)

    return advance


@section("command buffers", weight=30)
def command_buffers(reporter: Reporter) -> None:
    """Measure steps that the GPU goes through by itself, and steps that the host starts."""
    data = made_up(*reporter.sizes.small)
    for model in ("cml", "hlr"):
        shape = shape_of(reporter, model, _BATCH_SIZE)
        for name, options in _options().items():
            trainer = LibraryTrainer(config_of(shape), data, take_steps=_steps_compiled(options))
            seconds = step_seconds(trainer, reporter.sizes.rounds)
            what = f"{NAMES[model]}, B {shape.batch_size:,}, {name}: step"
            reporter.figure(what, 1e6 * seconds, "us")


def _draw_in_turns(drawing: Drawing, source: Source, order: Any, key: Any) -> Batch:
    """Draw the batches of these rows, `[turns, B]`, one after another; returns the last."""

    def draw(step: Any, _: Any) -> Batch:
        return draw_batch(drawing, source, order[step], key, step)

    like = jax.eval_shape(draw, 0, None)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return jax.lax.fori_loop(0, len(order), draw, start)


@section("drawing", weight=25)
def drawing(reporter: Reporter) -> None:
    """Measure drawing of HLR's batches with loops and without, and shuffling of a long epoch."""
    sizes, shape = reporter.sizes, shape_of(reporter, "hlr", _BATCH_SIZE)
    data = made_up(*sizes.small)
    trainer = LibraryTrainer(config_of(shape), data, num_devices=1)
    rng = np.random.default_rng(0)
    order = rng.integers(len(data), size=(sizes.turns, shape.batch_size)).astype(np.int32)
    arguments = jax.device_put((*trainer.drawing_and_source(), order, jax.random.key(0)))
    first = None
    for compiled, options in _options().items():
        for form, has_loops in (("written out", False), ("by loops", True)):
            # What is compiled has loops on a CPU alone.
            with mock.patch.object(kernel_sizes, "is_cpu", return_value=has_loops):
                # A function of its own, as JAX keeps what it has traced.
                traced = functools.partial(_draw_in_turns)
                lowered = jax.jit(traced, compiler_options=options).lower(*arguments)
            call = functools.partial(lowered.compile(), *arguments)
            last = jax.tree.map(np.asarray, call())
            first = last if first is None else first
            jax.tree.map(np.testing.assert_array_equal, last, first)
            seconds = seconds_of(call, sizes.rounds)
            name = f"drawing for HLR, B {shape.batch_size:,}, {form}, {compiled}"
            reporter.figure(name, 1e6 * seconds / sizes.turns, "us")
    _shuffling(reporter)


def _shuffling(reporter: Reporter) -> None:
    """Measure the shuffling of an epoch of as many rows as there are draws of large shapes."""
    number = reporter.sizes.large[2]
    places = epoch_order.in_batches(np.arange(number), _BATCH_SIZE)
    bounds = np.array([0, number], np.int32)
    arguments = jax.device_put((jax.random.key(0), places, bounds))
    shuffle = functools.partial(jax.jit(epoch_order.shuffled), *arguments)
    seconds = seconds_of(shuffle, reporter.sizes.rounds)
    reporter.figure(f"shuffling of {number:,} rows", 1e3 * seconds, "ms")


@section("precision", weight=30)
def precision(reporter: Reporter) -> None:
    """Measure HLR's step by the precision of its matrix products."""
    shape = shape_of(reporter, "hlr", _LARGE_BATCH_SIZE)
    data, config = made_up(*reporter.sizes.small), config_of(shape)
    for name in _PRECISIONS:
        training = dataclasses.replace(config.training, matmul_precision=name)
        trainer = LibraryTrainer(dataclasses.replace(config, training=training), data)
        seconds = step_seconds(trainer, reporter.sizes.rounds)
        what = f"HLR, B {shape.batch_size:,}, products in {name}: step"
        reporter.figure(what, 1e6 * seconds, "us")


@section("determinism", weight=40)
def determinism(reporter: Reporter) -> None:
    """Measure what the same bits in every run cost a step: `config.training.deterministic`."""
    data = made_up(*reporter.sizes.small)
    for model in ("cml", "hlr"):
        shape = shape_of(reporter, model, _BATCH_SIZE)
        for updates in ("dense", "sparse"):
            config = config_of(shape)
            optimizer = dataclasses.replace(config.optimizer, updates=updates)
            config = dataclasses.replace(config, optimizer=optimizer)
            for form, is_asked in (("as it is", False), ("the same bits", True)):
                options = {**devices.step_options(), **devices.same_bits_options(is_asked)}
                trainer = LibraryTrainer(config, data, take_steps=_steps_compiled(options))
                seconds = step_seconds(trainer, reporter.sizes.rounds)
                what = f"{NAMES[model]}, B {shape.batch_size:,}, {updates}, {form}: step"
                reporter.figure(what, 1e6 * seconds, "us")

"""What `gpu.py` measures first: ceilings, steps, the full catalogue, and ranking.

To add a section, decorate a function of a `Reporter`, here or in a module that `sections.py` lists.
"""

import dataclasses
import functools
import resource
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import peaks, shapes, timing
from benchmarks.speed.sections import Reporter, section
from benchmarks.speed.trainers import LibraryRanker, LibraryTrainer, as_dataset, config_of
from hlr_jax.config import Config, LossConfig, ModelConfig, TrainingConfig, build
from hlr_jax.data import Dataset, Interactions
from hlr_jax.errors import InputError
from hlr_jax.runs import compatibility

NAMES = {"cml": "CML", "lrml": "LRML", "hlr": "HLR", "hlrpp": "HLR++"}
PRODUCT, PRODUCT_BFLOAT16 = "product, float32 at default precision", "product, bfloat16"
STREAMING = "streaming, reads and writes"
# Model, batch size, and the microseconds that are asked of its step.
STEPS = (
    ("hlr", 1000, 150.0),
    ("hlr", 16_384, 800.0),
    ("cml", 1000, 40.0),
    ("cml", 65_536, 600.0),
    ("lrml", 65_536, 800.0),
    ("hlrpp", 1000, None),
)
# Implementation of HLR's relations to all items, and precision of products.
FULL_CATALOGUE = (
    ("pallas", "default"),
    ("pallas", "bfloat16"),
    ("xla", "default"),
    ("xla", "bfloat16"),
)
_TEMPERATURE = 0.2
K = 10

made_up = functools.cache(shapes.made_up)


def shape_of(reporter: Reporter, model: str, batch_size: int = 1000) -> shapes.Shape:
    """Shape a model's step; what is tiny has smaller batches."""
    sizes = reporter.sizes
    batch_size = min(batch_size, sizes.most)
    lengths = sizes.dim, sizes.slots, sizes.history_length
    return shapes.Shape(model, *lengths, batch_size=batch_size)


@section("ceilings", weight=25)
def ceilings(reporter: Reporter) -> None:
    """Measure the fastest products and passes over memory."""
    sizes = reporter.sizes
    for name, dtype in ((PRODUCT, "float32"), (PRODUCT_BFLOAT16, "bfloat16")):
        reporter.figure(name, peaks.product_tflops(sizes.product_side, dtype), "TFLOP/s")
    reporter.figure(STREAMING, peaks.streaming_gbps(sizes.floats), "GB/s")


def seconds_of(call: Callable[[], Any], rounds: int) -> float:
    """Time a call of a compiled program until its result is there: the median of rounds."""
    jax.block_until_ready(call())
    times = [timing.seconds(lambda: jax.block_until_ready(call())) for _ in range(rounds)]
    return statistics.median(times)


def step_seconds(trainer: LibraryTrainer, rounds: int) -> float:
    """Time a step, the median of epochs whose shuffling is not timed."""
    number = trainer.steps_per_epoch
    trainer.run(number)
    times = []
    for _ in range(rounds):
        trainer.start_epoch()
        times.append(timing.seconds(functools.partial(trainer.run, number)) / number)
    return statistics.median(times)


def step(model: str, batch_size: int, asked: float | None, reporter: Reporter) -> None:
    """Measure a training step, sampling included, as the library's program of an epoch takes it."""
    shape = shape_of(reporter, model, batch_size)
    data = made_up(*reporter.sizes.small)
    trainer = LibraryTrainer(config_of(shape), data)
    number = trainer.steps_per_epoch

    compile_seconds = timing.seconds(functools.partial(trainer.run, number))
    shuffling, running = [], []
    for _ in range(reporter.sizes.rounds):
        shuffling.append(timing.seconds(trainer.start_epoch) / number)
        running.append(timing.seconds(functools.partial(trainer.run, number)) / number)

    name = f"{NAMES[model]}, B {shape.batch_size:,}"
    seconds = statistics.median(running)
    reporter.figure(f"{name}: step", 1e6 * seconds, "us", asked)
    reporter.figure(f"{name}: shuffle, of a step", 1e6 * statistics.median(shuffling), "us")
    reporter.figure(f"{name}: first epoch, with compilation", compile_seconds, "s")
    flops, moved = reporter.value_of(PRODUCT), reporter.value_of(STREAMING)
    if flops and moved:
        rows = data.num_users + data.num_items
        least = max(
            shapes.useful_flops(shape) / (1e12 * flops),
            shapes.useful_bytes(shape, rows) / (1e9 * moved),
        )
        reporter.figure(f"{name}: share of roofline", least / seconds, "of 1")


for _model, _batch_size, _asked in STEPS:
    section(f"{NAMES[_model]}'s step, B {_batch_size:,}", weight=18)(
        functools.partial(step, _model, _batch_size, _asked)
    )


def full_catalogue_config(reporter: Reporter, implementation: str, precision: str) -> Config:
    """Configure HLR with the softmax over all items, on batches of users."""
    config = config_of(shape_of(reporter, "hlr"))
    options = {**config.model.options, "implementation": implementation}
    return dataclasses.replace(
        config,
        model=ModelConfig(name="hlr", dim=config.model.dim, options=options),
        sampling=dataclasses.replace(config.sampling, negatives="full_catalog", options={}),
        loss=LossConfig(name="softmax", options={"temperature": _TEMPERATURE}),
        training=TrainingConfig(
            batch_of="users",
            batch_size=reporter.sizes.users_per_step,
            matmul_precision=precision,
        ),
    )


def _full_catalogue_name(reporter: Reporter, how: str) -> str:
    return f"HLR, full catalogue, {reporter.sizes.users_per_step} users a step, {how}: "


def full_catalogue(implementation: str, precision: str, reporter: Reporter) -> None:
    """Measure an epoch of HLR with the softmax over all items, and the peak memory of that."""
    data = made_up(*reporter.sizes.small)
    config = full_catalogue_config(reporter, implementation, precision)
    name = _full_catalogue_name(reporter, f"{implementation}, {precision}")
    try:
        compatibility.check_config(config)
        compatibility.check(config, build.build_model(config), _with_a_test(data))
        trainer = LibraryTrainer(config, data)
    except InputError as error:
        reporter.figure(name + "epoch", None, "s", note=f"refused: {error}")
        return
    seconds = step_seconds(trainer, reporter.sizes.rounds)
    # An epoch has a short last batch too, by its share.
    steps = np.count_nonzero(data.counts) / config.training.batch_size
    reporter.figure(name + "epoch", seconds * steps, "s")
    reporter.figure(name + "peak memory", _peak_gib(), "GiB")


for _implementation, _precision in FULL_CATALOGUE:
    section(f"full catalogue, {_implementation}, {_precision}", weight=25, is_alone=True)(
        functools.partial(full_catalogue, _implementation, _precision)
    )


@section("full catalogue, the best", weight=1)
def best_of_full_catalogue(reporter: Reporter) -> None:
    """Compare the fastest way through the full catalogue with what is asked."""
    found = {}
    for how in map(", ".join, FULL_CATALOGUE):
        seconds = reporter.value_of(_full_catalogue_name(reporter, how) + "epoch")
        if seconds is not None:
            found[how] = seconds
    best = min(found, key=lambda how: found[how], default=None)
    peak = best and reporter.value_of(_full_catalogue_name(reporter, best) + "peak memory")
    name = _full_catalogue_name(reporter, "the best")
    note = f"by {best}" if best else "none was measured"
    reporter.figure(name + "epoch", found[best] if best else None, "s", 0.3, note)
    reporter.figure(name + "peak memory", peak or None, "GiB", 4.0, note)


def _with_a_test(data: Interactions) -> Dataset:
    """Take interactions as a data set that has a test interaction too, as a run needs one."""
    unseen = np.setdiff1d(np.arange(data.num_items), data.of(0))[:1]
    test = Interactions.from_pairs(np.zeros(1), unseen, data.num_users, data.num_items)
    return dataclasses.replace(as_dataset(data), test=test)


def _peak_gib() -> float:
    """Find the most memory of the device, or where that is the CPU of the process, so far."""
    stats = jax.devices()[0].memory_stats() or {}
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    return stats.get("peak_bytes_in_use", process) / 2**30


@section("ranking of ML-20M's shapes", weight=45)
def ranking(reporter: Reporter) -> None:
    """Measure how long HLR takes to rank for all users of the large shapes."""
    data = made_up(*reporter.sizes.large)
    ranker = LibraryRanker(shape_of(reporter, "hlr"), data, K)
    users = np.arange(data.num_users, dtype=np.int32)
    name = f"HLR ranks for {data.num_users:,} users, {data.num_items:,} items"
    first = timing.seconds(functools.partial(ranker.top_k, users))
    reporter.figure(f"{name}: first time, with compilation", first, "s")
    if reporter.left > 1.2 * first:
        again = timing.seconds(functools.partial(ranker.top_k, users))
        reporter.figure(name, again, "s", 5.0)
    else:
        reporter.figure(name, first, "s", 5.0, note="with compilation: no time for a second call")

"""What `gpu.py` measures: ceilings, steps, the full catalogue, ranking, and both against PyTorch.

To add a section, decorate a function of a `Reporter`, here or in a module that `sections.py` lists.
"""

import dataclasses
import functools
import resource
import statistics
from collections.abc import Callable, Mapping

import jax
import numpy as np

from benchmarks import peaks, shapes, timing
from benchmarks.peers import contest, forms
from benchmarks.speed import against_pytorch
from benchmarks.speed.sections import Reporter, section
from benchmarks.speed.trainers import LibraryRanker, LibraryTrainer, as_dataset, config_of
from hlr_jax.config import Config, LossConfig, TrainingConfig, build
from hlr_jax.data import Dataset, Interactions
from hlr_jax.errors import InputError
from hlr_jax.runs import compatibility

NAMES = {"cml": "CML", "lrml": "LRML", "hlr": "HLR", "hlrpp": "HLR++"}
PRODUCT, STREAMING = "product, float32 at default precision", "streaming, reads and writes"
# Model, batch size, and the microseconds that are asked of its step.
STEPS = (
    ("hlr", 1000, 150.0),
    ("hlr", 16_384, 800.0),
    ("cml", 1000, 40.0),
    ("cml", 65_536, 600.0),
    ("lrml", 65_536, 800.0),
    ("hlrpp", 1000, None),
)
_TEMPERATURE, _K = 0.2, 10

made_up = functools.cache(shapes.made_up)


def _shape(reporter: Reporter, model: str, batch_size: int = 1000) -> shapes.Shape:
    sizes = reporter.sizes
    batch_size = min(batch_size, sizes.most)
    lengths = sizes.dim, sizes.slots, sizes.history_length
    return shapes.Shape(model, *lengths, batch_size=batch_size)


@section("ceilings", weight=25)
def ceilings(reporter: Reporter) -> None:
    """Measure the fastest products and passes over memory."""
    sizes = reporter.sizes
    for name, dtype in ((PRODUCT, "float32"), ("product, bfloat16", "bfloat16")):
        reporter.figure(name, peaks.product_tflops(sizes.product_side, dtype), "TFLOP/s")
    reporter.figure(STREAMING, peaks.streaming_gbps(sizes.floats), "GB/s")


def step(model: str, batch_size: int, asked: float | None, reporter: Reporter) -> None:
    """Measure a training step, sampling included, as the library's program of an epoch takes it."""
    shape = _shape(reporter, model, batch_size)
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


def full_catalogue_config(reporter: Reporter) -> Config:
    """Configure HLR with the softmax over all items, on batches of users."""
    config = config_of(_shape(reporter, "hlr"))
    users = reporter.sizes.users_per_step
    return dataclasses.replace(
        config,
        sampling=dataclasses.replace(config.sampling, negatives="full_catalog", options={}),
        loss=LossConfig(name="softmax", options={"temperature": _TEMPERATURE}),
        training=TrainingConfig(batch_of="users", batch_size=users),
    )


@section("full catalogue", weight=50, is_alone=True)
def full_catalogue(reporter: Reporter) -> None:
    """Measure an epoch of HLR with the softmax over all items, and the peak memory of that."""
    data, config = made_up(*reporter.sizes.small), full_catalogue_config(reporter)
    name = f"HLR, full catalogue, {config.training.batch_size} users a step: "
    epoch = name + "epoch", "s", 0.3
    try:
        compatibility.check_config(config)
        compatibility.check(config, build.build_model(config), _with_a_test(data))
        trainer = LibraryTrainer(config, data)
    except InputError as error:
        reporter.figure(epoch[0], None, *epoch[1:], note=f"refused: {error}")
        return
    number = trainer.steps_per_epoch
    trainer.run(number)
    times = []
    for _ in range(reporter.sizes.rounds):
        times.append(timing.seconds(functools.partial(trainer.run, number)))
    # The short last batch is left out; an epoch has its share of the time too.
    users = np.count_nonzero(data.counts)
    share = users / (number * config.training.batch_size)
    reporter.figure(epoch[0], statistics.median(times) * share, *epoch[1:])
    reporter.figure(name + "peak memory", _peak_gib(), "GiB", 4.0)


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
    ranker = LibraryRanker(_shape(reporter, "hlr"), data, _K)
    users = np.arange(data.num_users, dtype=np.int32)
    name = f"HLR ranks for {data.num_users:,} users, {data.num_items:,} items"
    first = timing.seconds(functools.partial(ranker.top_k, users))
    reporter.figure(f"{name}: first time, with compilation", first, "s")
    if reporter.left > 1.2 * first:
        again = timing.seconds(functools.partial(ranker.top_k, users))
        reporter.figure(name, again, "s", 5.0)
    else:
        reporter.figure(name, first, "s", 5.0, note="with compilation: no time for a second call")


@section("HLR's training against PyTorch", weight=90)
def hlr_training(reporter: Reporter) -> None:
    """Compare HLR's training with PyTorch's in turns."""
    _training_race(reporter, "hlr", 20.0)


@section("HLR's ranking against PyTorch", weight=90)
def hlr_ranking(reporter: Reporter) -> None:
    """Compare HLR's ranking with PyTorch's in turns."""
    _ranking_race(reporter, "hlr", 50.0)


@section("CML's training against PyTorch", weight=70)
def cml_training(reporter: Reporter) -> None:
    """Compare CML's training with PyTorch's in turns."""
    _training_race(reporter, "cml", None)


@section("CML's ranking against PyTorch", weight=60)
def cml_ranking(reporter: Reporter) -> None:
    """Compare CML's ranking with PyTorch's in turns."""
    _ranking_race(reporter, "cml", None)


def _limit(reporter: Reporter) -> float:
    """Seconds that compilation may take: so that there is time to measure who is in time."""
    return max(1.0, min(contest.COMPILE_SECONDS, 0.6 * reporter.left))


def _training_race(reporter: Reporter, model: str, asked: float | None) -> None:
    sizes, shape = reporter.sizes, _shape(reporter, model)
    data = made_up(*sizes.small)
    ours = LibraryTrainer(config_of(shape), data)
    batch, loss = ours.triplets_and_loss()
    of_forms = sizes.forms or forms.offered(jax.default_backend())
    builds = against_pytorch.trainers(shape, data, ours.params(), of_forms)
    ours.run(1)
    first = functools.partial(against_pytorch.check_loss, tuple(batch), loss)
    with contest.hold(builds, first, _limit(reporter), sizes.is_local) as plain:
        runs: dict[str, Callable[[int], object]] = {"ours": ours.run}
        for name, peer in plain.ready.items():
            runs[name] = functools.partial(peer.call, "run")
        number = {name: timing.steps_that_take(sizes.seconds, run) for name, run in runs.items()}
        calls = {name: functools.partial(run, number[name]) for name, run in runs.items()}
        times = timing.alternate(calls, sizes.rounds)
    each = {name: statistics.median(times[name]) / number[name] for name in times}
    _report(reporter, f"{NAMES[model]}'s training", each, plain, asked)


def _ranking_race(reporter: Reporter, model: str, asked: float | None) -> None:
    sizes, shape = reporter.sizes, _shape(reporter, model)
    data = made_up(*sizes.small)
    ours = LibraryRanker(shape, data, _K)
    users = np.random.default_rng(0).permutation(data.num_users).astype(np.int32)
    some = users[: sizes.ranked] if shape.has_history else users
    of_forms = sizes.forms or forms.offered_for_ranking(jax.default_backend())
    chosen = [(form, chunk) for form in of_forms for chunk in sizes.chunks]
    builds = against_pytorch.rankers(shape, data, ours.params(), _K, chosen)
    expected = ours.histories(some), ours.top_k(some)[1]
    ours.top_k(users)
    first = functools.partial(against_pytorch.check_scores, some, *expected)
    with contest.hold(builds, first, _limit(reporter), sizes.is_local) as plain:
        calls: dict[str, Callable[[], object]] = {"ours": functools.partial(ours.top_k, users)}
        for name, peer in plain.ready.items():
            calls[name] = functools.partial(peer.call, "top_k", some)
        times = timing.alternate(calls, sizes.rounds)
    number = dict.fromkeys(times, len(some)) | {"ours": len(users)}
    each = {name: statistics.median(times[name]) / number[name] for name in times}
    _report(reporter, f"{NAMES[model]}'s ranking", each, plain, asked)


def _report(
    reporter: Reporter,
    what: str,
    each: Mapping[str, float],
    plain: contest.Contest,
    asked: float | None,
) -> None:
    """Report seconds of each contestant, for a step or a user, and the ratio with the best."""
    for name, seconds in each.items():
        reporter.figure(f"{what}, {name}", 1e6 * seconds, "us")
    for name, row in plain.rows.items():
        seconds, why = row.get("compile_seconds"), row.get("left_out", "")
        reporter.figure(f"{what}, {name}: compilation", seconds, "s", note=why)
    peers = {name: each[name] for name in plain.ready}
    best = min(peers, key=lambda name: peers[name], default=None)
    ratio = peers[best] / each["ours"] if best else None
    note = f"against {best}" if best else "nobody to compare with"
    reporter.figure(f"{what}, PyTorch's best / ours", ratio, "x", asked, note)

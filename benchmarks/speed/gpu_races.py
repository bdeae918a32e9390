"""HLR's and CML's training and ranking against PyTorch's, which take turns."""

import functools
import statistics
from collections.abc import Callable, Mapping

import jax
import numpy as np

from benchmarks import timing
from benchmarks.peers import contest, forms
from benchmarks.speed import against_pytorch
from benchmarks.speed.gpu_sections import NAMES, K, made_up, shape_of
from benchmarks.speed.sections import Reporter, section
from benchmarks.speed.trainers import LibraryRanker, LibraryTrainer, config_of


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
    sizes, shape = reporter.sizes, shape_of(reporter, model)
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
    sizes, shape = reporter.sizes, shape_of(reporter, model)
    data = made_up(*sizes.small)
    ours = LibraryRanker(shape, data, K)
    users = np.random.default_rng(0).permutation(data.num_users).astype(np.int32)
    some = users[: sizes.ranked] if shape.has_history else users
    of_forms = sizes.forms or forms.offered_for_ranking(jax.default_backend())
    chosen = [(form, chunk) for form in of_forms for chunk in sizes.chunks]
    builds = against_pytorch.rankers(shape, data, ours.params(), K, chosen)
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
        spent, why = row.get("compile_seconds"), row.get("left_out", "")
        reporter.figure(f"{what}, {name}: compilation", spent, "s", note=why)
    peers = {name: each[name] for name in plain.ready}
    best = min(peers, key=lambda name: peers[name], default=None)
    ratio = peers[best] / each["ours"] if best else None
    note = f"against {best}" if best else "nobody to compare with"
    reporter.figure(f"{what}, PyTorch's best / ours", ratio, "x", asked, note)

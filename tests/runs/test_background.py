"""Checkpoints are written while the devices train on: in order, the newest alone, and in the end.

What is on the disk at any time is what a run that is killed then goes on from.
"""

import functools
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from support.small_runs import (
    STEPS,
    Run,
    assert_same,
    config_of,
    data_for,
    interrupt_after,
    read_log,
    train,
)

from hlr_jax.errors import DivergedError
from hlr_jax.parallel import processes
from hlr_jax.runs import experiment, manifests
from hlr_jax.runs.background import BackgroundStore, while_training
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.trackers import Each
from hlr_jax.training.loop import Record
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import MemoryStore, Progress, Store

SECONDS = 60  # Until a test gives up.


class Gated(MemoryStore):
    """Notes what is written, which takes until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, int]] = []
        self.states: list[TrainState] = []
        self.is_writing, self.gate = threading.Event(), threading.Event()

    def save(self, state: TrainState, progress: Progress) -> None:
        self._write("latest", state, progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        self._write("best", state, progress)
        self.best = state.params

    def _write(self, kind: str, state: TrainState, progress: Progress) -> None:
        self.is_writing.set()
        assert self.gate.wait(SECONDS)
        self.written.append((kind, progress.epochs))
        self.states.append(state)


@functools.cache
def initial() -> TrainState:
    return Run.of(config_of()).state()


def progress_of(epochs: int) -> Progress:
    return Progress(epochs=epochs, best_epoch=epochs)


# --- what is written, and when -------------------------------------------------------------------


def test_training_goes_on_while_a_save_takes_its_time():
    store, records = Gated(), []

    def on_epoch(record: Record) -> None:
        records.append(record)
        if record["epoch"] == 1:
            return
        # The first epoch is still being written.
        assert store.is_writing.wait(SECONDS)
        assert store.written == []
        if record["epoch"] == 5:
            store.gate.set()

    with BackgroundStore(store) as background:
        params, progress = Run.of(config_of(epochs=5)).fit(store=background, on_epoch=on_epoch)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert store.written[:2] == [("best", 1), ("latest", 1)]
    assert store.written[-2:] == [("best", 5), ("latest", 5)]
    expected, expected_progress = Run.of(config_of(epochs=5)).fit()
    assert_same(params, expected)
    # Seconds are reported too.
    unlike = {"seconds": 0, "log_checksum": 0}
    assert progress._replace(**unlike) == expected_progress._replace(**unlike)


def test_the_newest_pair_is_written_and_the_best_before_the_latest():
    store = Gated()
    with BackgroundStore(store) as background:
        background.save_best(initial(), progress_of(1))
        background.save(initial(), progress_of(1))
        assert store.is_writing.wait(SECONDS)
        for epoch in (2, 3):
            background.save_best(initial(), progress_of(epoch))
            background.save(initial(), progress_of(epoch))
        # It counts on the best of epoch 3, which is still to be written.
        background.save(initial(), progress_of(4))
        store.gate.set()
    assert store.written == [("best", 1), ("latest", 1), ("best", 3), ("latest", 4)]


def test_a_best_that_no_state_follows_is_not_written():
    """Nothing would count on it, and the state before counts on the one before."""
    store = Gated()
    with BackgroundStore(store) as background:
        background.save_best(initial(), progress_of(1))
        background.save(initial(), progress_of(1))
        assert store.is_writing.wait(SECONDS)
        background.save(initial(), progress_of(2))
        background.save_best(initial(), progress_of(3))
        store.gate.set()
    assert store.written == [("best", 1), ("latest", 1), ("latest", 2)]


def test_what_was_saved_is_written_though_its_memory_is_used_again():
    store, run = Gated(), Run.of(config_of())
    state = run.state()
    expected = jax.tree.map(np.array, state)
    with BackgroundStore(store) as background:
        background.save_best(state, progress_of(1))
        background.save(state, progress_of(1))
        donated = state.params["user"]
        run.steps(state, 0, 3)
        assert donated.is_deleted()
        store.gate.set()
    best, latest = store.states
    assert_same(best.params, expected.params)
    assert_same(latest, expected)


# --- errors --------------------------------------------------------------------------------------


class Full(Gated):
    """Has no room for one kind of checkpoint."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gate.set()

    def _write(self, kind: str, state: TrainState, progress: Progress) -> None:
        if kind == self.kind:
            raise OSError("disk full")
        super()._write(kind, state, progress)


@pytest.mark.parametrize("kind", ["best", "latest"])
def test_an_error_is_raised_by_the_next_call_and_nothing_is_written_after_it(kind):
    store = Full(kind)
    background = BackgroundStore(store)
    background.save_best(initial(), progress_of(1))
    background.save(initial(), progress_of(1))
    assert isinstance(background._written.exception(SECONDS), OSError)
    for call in (
        lambda: background.save(initial(), progress_of(2)),
        lambda: background.save_best(initial(), progress_of(2)),
        lambda: background.restore(initial()),
        lambda: background.restore_best(initial().params),
        lambda: background.__exit__(),
    ):
        with pytest.raises(OSError, match="disk full"):
            call()
    assert store.written == ([("best", 1)] if kind == "latest" else [])


def test_an_error_of_the_last_write_ends_the_run():
    with pytest.raises(OSError, match="disk full"), BackgroundStore(Full("latest")) as background:
        Run.of(config_of(epochs=1)).fit(store=background)


def test_what_waits_is_written_when_training_fails():
    store = Gated()

    def fail() -> None:
        with BackgroundStore(store) as background:
            background.save_best(initial(), progress_of(1))
            background.save(initial(), progress_of(1))
            assert store.is_writing.wait(SECONDS)
            background.save(initial(), progress_of(2))
            store.gate.set()
            raise DivergedError

    with pytest.raises(DivergedError):
        fail()
    assert store.written == [("best", 1), ("latest", 1), ("latest", 2)]


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    train(config_of(), folder)
    return folder


def hold_saves(patched: pytest.MonkeyPatch, number: int) -> tuple[Callable[[int], None], Any]:
    """Hold the write of a state, counted from 1, until an event.

    Returns:
      What waits until so many have been begun, and the event.
    """
    save, begun = Checkpoints.save, threading.Semaphore(0)
    numbers, gate = iter(range(1, 100)), threading.Event()

    def held(store: Checkpoints, state: TrainState, progress: Progress) -> None:
        begun.release()
        if next(numbers) == number:
            assert gate.wait(SECONDS)
        save(store, state, progress)

    def wait(count: int) -> None:
        for _ in range(count):
            assert begun.acquire(timeout=SECONDS)

    patched.setattr(Checkpoints, "save", held)
    return wait, gate


def test_an_interrupt_during_a_write_saves_the_state_that_was_reached(
    finished, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        _, gate = hold_saves(patched, 1)
        finish = BackgroundStore.finish

        def finish_at_last(background: BackgroundStore) -> None:
            # At the start there is nothing to wait for.
            if (tmp_path / "metrics.jsonl").exists():
                gate.set()
            finish(background)

        patched.setattr(BackgroundStore, "finish", finish_at_last)
        interrupt_after(patched, STEPS + 5)
        with pytest.raises(KeyboardInterrupt, match="goes on from the last checkpoint"):
            train(config_of(), tmp_path)
    restored = Checkpoints(tmp_path / "checkpoints").restore(Run.of(config_of()).state())
    assert restored
    # The host looked once a step, and once at the end of the first epoch.
    assert int(restored[0].step) == STEPS + 4
    assert_same(train(config_of(), tmp_path), train(config_of(), finished))
    assert read_log(tmp_path) == read_log(finished)


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_killed_between_two_writes_goes_on_as_if_it_never_stopped(
    number, finished, tmp_path, monkeypatch
):
    """From the files that there are once a best is written, but not the state that follows it."""
    killed = tmp_path / "killed"
    with monkeypatch.context() as patched:
        wait, gate = hold_saves(patched, number)

        def on_epoch(record: Record) -> None:
            if 1 < record["epoch"] <= number + 1:
                wait(1)
            if record["epoch"] == 3:
                shutil.copytree(tmp_path / "run", killed)
                gate.set()

        data = data_for("cml")
        experiment.train(config_of(), tmp_path / "run", data, False, [Each(on_epoch)])
    assert len(read_log(killed)) == 3
    store = Checkpoints(killed / "checkpoints")
    assert store.progress().epochs == number - 1
    assert stored_progress(killed, "best").best_epoch == number
    assert_same(train(config_of(), killed), train(config_of(), finished))
    assert read_log(killed) == read_log(finished)


def stored_progress(workdir: pathlib.Path, kind: str) -> Progress:
    """How far the newest checkpoint of a kind had come."""
    folder = workdir / "checkpoints" / kind
    newest = max(int(path.name) for path in folder.iterdir())
    return manifests.read(folder / str(newest)).progress


def test_a_caller_that_ends_the_training_has_what_the_epoch_before_left(tmp_path):
    def stop(record: Record) -> None:
        if record["epoch"] == 3:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        experiment.train(config_of(), tmp_path, data_for("cml"), False, [Each(stop)])
    assert stored_progress(tmp_path, "best").epochs == 2
    assert stored_progress(tmp_path, "latest").epochs == 2


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("devices")])
def test_arrays_of_several_devices_come_back_as_they_were(spec, tmp_path):
    """Sharded ones with rows that fill the shards up, which a single device does without."""
    sharding = NamedSharding(Mesh(jax.local_devices()[:4], ("devices",)), spec)
    tables = {"user": jnp.arange(24.0).reshape(8, 3), "item": jnp.arange(36.0).reshape(12, 3)}
    params = jax.device_put(tables, sharding) | {"relation": {}}
    zero = jax.device_put(np.float32(0), NamedSharding(sharding.mesh, PartitionSpec()))
    state = TrainState(zero, params, (params["user"],), zero, zero)
    rows = {"user": 7, "item": 12}
    with BackgroundStore(Checkpoints(tmp_path, rows)) as background:
        background.save_best(state, progress_of(1))
        background.save(state, progress_of(1))
        restored = background.restore(state)
        assert restored
        assert restored[1] == progress_of(1)
        assert_same(restored[0], state)
        assert restored[0].params["user"].sharding == sharding
        alone = {"user": jnp.zeros((7, 3)), "item": jnp.zeros((12, 3)), "relation": {}}
        best = background.restore_best(alone)
    np.testing.assert_array_equal(best["user"], tables["user"][:7])
    np.testing.assert_array_equal(best["item"], tables["item"])


def test_several_processes_write_in_step(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    with while_training(checkpoints) as store:
        assert isinstance(store, BackgroundStore)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with while_training(checkpoints) as store:
        assert store is checkpoints
    assert isinstance(checkpoints, Store)

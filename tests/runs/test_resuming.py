"""An interrupted run goes on as if it never stopped, and what may change meanwhile."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from support.small_runs import (
    STEPS,
    Run,
    assert_same,
    config_of,
    differ,
    interrupt_after,
    read_log,
    train,
    with_loss,
    with_radius,
)

from hlr_jax.config import Config
from hlr_jax.errors import InputError
from hlr_jax.parallel import devices
from hlr_jax.runs import checkpoints, experiment
from hlr_jax.training import loop
from hlr_jax.training.loop import Record
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import MemoryStore, Progress
from hlr_jax.types import Params

Finished = tuple[Params, list[Record], pathlib.Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """What an uninterrupted run of a model selects, its log, and its folder, which stays as is."""

    @functools.cache
    def run(model: str) -> Finished:
        folder = tmp_path_factory.mktemp(model)
        return train(config_of(model), folder), read_log(folder), folder

    return run


@pytest.mark.parametrize("model", ["cml", "cmlf", "hlr", "items_only", "transcf"])
def test_a_resumed_run_is_the_uninterrupted_run(model, finished, tmp_path, monkeypatch):
    expected, expected_log, _ = finished(model)
    for name, steps in (
        ("after the first step", 1),
        ("within an epoch", STEPS + 5),
        ("at an epoch's end", 2 * STEPS),
        ("at the last epoch's end", 3 * STEPS),
    ):
        with monkeypatch.context() as patched:
            interrupt_after(patched, steps)
            with pytest.raises(KeyboardInterrupt):
                train(config_of(model), tmp_path / name)
        assert len(read_log(tmp_path / name)) == (steps - 1) // STEPS, name
        assert_same(train(config_of(model), tmp_path / name), expected)
        log = read_log(tmp_path / name)
        assert [record["epoch"] for record in log] == [1, 2, 3], name
        assert log == expected_log, name


def test_a_run_interrupted_again_and_again(finished, tmp_path, monkeypatch):
    expected, expected_log, _ = finished("hlr")
    with monkeypatch.context() as patched:
        for steps in (3, 9, 5, 12):
            interrupt_after(patched, steps)
            with pytest.raises(KeyboardInterrupt):
                train(config_of("hlr"), tmp_path)
    assert_same(train(config_of("hlr"), tmp_path), expected)
    assert read_log(tmp_path) == expected_log


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_stopped_in_validation_goes_on_with_it(epoch, finished, tmp_path, monkeypatch):
    expected, expected_log, _ = finished("cml")
    mean_loss, calls = experiment.mean_loss, []

    def stopped(*arguments: Any) -> float:
        calls.append(arguments)
        if len(calls) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("was not stopped")
        return mean_loss(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "mean_loss", stopped)
        with pytest.raises(KeyboardInterrupt, match="goes on from the last checkpoint"):
            train(config_of(), tmp_path)
    assert len(read_log(tmp_path)) == epoch - 1
    assert_same(train(config_of(), tmp_path), expected)
    assert read_log(tmp_path) == expected_log


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_a_run_goes_on_with_another_number_of_devices(before, after, tmp_path, monkeypatch):
    config = config_of("hlr", epochs=2)
    monkeypatch.setattr(devices, "count", lambda: after)
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(devices, "count", lambda: before)
        interrupt_after(patched, STEPS + 5)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    parts = train(config, tmp_path / "parts")
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    log, whole_log = read_log(tmp_path / "parts"), read_log(tmp_path / "whole")
    assert [record["step"] for record in log] == [STEPS, 2 * STEPS]
    for record, expected in zip(log, whole_log, strict=True):
        assert record == pytest.approx(expected, rel=1e-4)


class Killed(Exception):
    pass


def test_a_run_killed_between_its_two_saves_logs_no_epoch_twice(finished, tmp_path, monkeypatch):
    """Where nothing is written in the background, as with several processes."""
    monkeypatch.setattr(experiment, "while_training", contextlib.nullcontext)
    config, (expected, expected_log, _) = config_of(), finished("cml")

    def kill(store: Any, state: TrainState, progress: Progress) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        interrupt_after(patched, STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
        patched.undo()
        # The epoch is logged and its best parameters are saved; the state is not.
        patched.setattr(checkpoints.Checkpoints, "save", kill)
        with pytest.raises(Killed):
            train(config, tmp_path)
    assert [record["epoch"] for record in read_log(tmp_path)] == [1, 2]
    assert_same(train(config, tmp_path), expected)
    assert read_log(tmp_path) == expected_log


def test_a_finished_run_is_not_trained_on(finished, monkeypatch):
    expected, _, folder = finished("cml")

    def advance(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained on")

    monkeypatch.setattr(loop, "advance", advance)
    assert_same(train(config_of(), folder), expected)


def test_more_epochs_go_on_where_the_run_ended(finished, tmp_path):
    expected, expected_log, _ = finished("cml")
    train(config_of(epochs=1), tmp_path)
    assert_same(train(config_of(epochs=3), tmp_path), expected)
    assert read_log(tmp_path) == expected_log


def test_fewer_epochs_than_a_run_has_are_refused_and_nothing_changes(finished):
    folder = finished("cml")[2]
    before = (folder / "config.json").read_text()
    with pytest.raises(InputError, match=r"a run of 3 epochs.*training\.epochs=3 or more, not 1"):
        train(config_of(epochs=1), folder)
    assert (folder / "config.json").read_text() == before


def test_an_epoch_record_without_its_number_is_refused_with_the_file(finished, tmp_path):
    shutil.copytree(finished("cml")[2], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 12}\n')
    with pytest.raises(InputError, match="no number of an epoch; repair or delete") as caught:
        train(config_of(), tmp_path)
    assert str(path) in str(caught.value)


def with_cosine(epochs: int, schedule_epochs: int) -> Config:
    config = config_of(epochs=epochs)
    cosine = {"schedule": "cosine", "schedule_epochs": schedule_epochs}
    optimizer = dataclasses.replace(config.optimizer, **cosine)
    return dataclasses.replace(config, optimizer=optimizer)


def test_a_cosine_over_epochs_of_its_own_goes_on_where_the_run_ended(tmp_path):
    train(with_cosine(2, 8), tmp_path / "parts")
    longer = train(with_cosine(3, 8), tmp_path / "parts")
    assert_same(longer, train(with_cosine(3, 8), tmp_path / "whole"))
    assert differ(longer, train(with_cosine(3, 0)))


def test_a_cosine_over_all_epochs_is_not_stretched(tmp_path):
    train(with_cosine(2, 0), tmp_path)
    with pytest.raises(InputError, match=r"config\.training\.epochs=2, not 3; use another folder"):
        train(with_cosine(3, 0), tmp_path)


def test_the_state_is_saved_within_a_long_epoch(tmp_path, monkeypatch):
    saved: list[int] = []

    class Recording(MemoryStore):
        def save(self, state: TrainState, progress: Progress) -> None:
            saved.append(int(state.step))

    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    Run.of(config_of(epochs=1, checkpoint_minutes=1e-9)).fit(store=Recording())
    assert saved == [*range(1, STEPS + 1), STEPS]


def test_another_configuration_is_refused_in_the_same_folder(finished):
    folder = finished("cml")[2]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for other, field in [
        (config_of(seed=5), "config.seed=1, not 5"),
        (config_of("lrml"), "config.model."),
        (config_of(learning_rate=0.5), "config.optimizer.learning_rate=0.03, not 0.5"),
        (with_radius(config_of(), 0.5), "config.geometry.radius=1.0, not 0.5"),
        (with_radius(config_of(), 1.0, "sphere"), "config.geometry.name='ball', not 'sphere'"),
        (with_loss(config_of(), "hinge", 0.2), "config.loss.margin=0.5, not 0.2"),
        (config_of(negatives=3), "config.sampling.num_negatives=2, not 3"),
    ]:
        with pytest.raises(InputError) as caught:
            train(other, folder)
        assert field in str(caught.value)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_signals_are_noted_and_afterwards_handled_as_before():
    previous = signal.getsignal(signal.SIGTERM)
    with loop.StopRequest() as request:
        assert not request.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received
    assert signal.getsignal(signal.SIGTERM) is previous

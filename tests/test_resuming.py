"""An interrupted run goes on as if it never stopped, and what may change meanwhile."""

import dataclasses
import os
import signal
from typing import Any

import jax
import numpy as np
import pytest
from small_runs import STEPS, Run, assert_same, config_of, differ, interrupt_after, read_log, train

from hlr_jax.config import Config
from hlr_jax.errors import InputError
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import checkpoints
from hlr_jax.training import loop as fitting
from hlr_jax.training.loop import MemoryStore, Progress
from hlr_jax.training.step import TrainState

pytestmark = pytest.mark.usefixtures("one_optimizer_per_configuration")


@pytest.mark.parametrize("model", ["cml", "cmlf", "hlr", "transcf"])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(1, id="after the first step"),
        pytest.param(STEPS + 5, id="within an epoch"),
        pytest.param(2 * STEPS, id="at an epoch's end"),
        pytest.param(3 * STEPS, id="at the last epoch's end"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(model, steps, tmp_path, monkeypatch):
    config = config_of(model)
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    assert len(read_log(tmp_path / "parts")) == (steps - 1) // STEPS
    assert_same(train(config, tmp_path / "parts"), whole)
    log = read_log(tmp_path / "parts")
    assert [record["epoch"] for record in log] == [1, 2, 3]
    assert log == read_log(tmp_path / "whole")


def test_a_run_interrupted_again_and_again(tmp_path, monkeypatch):
    config = config_of("hlr")
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        for steps in (3, 9, 5, 12):
            interrupt_after(patched, steps)
            with pytest.raises(KeyboardInterrupt):
                train(config, tmp_path / "parts")
    assert_same(train(config, tmp_path / "parts"), whole)
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


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


def test_a_run_killed_between_its_two_saves_logs_no_epoch_twice(tmp_path, monkeypatch):
    config = config_of()
    whole = train(config, tmp_path / "whole")

    def kill(store: Any, state: TrainState, progress: Progress) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        interrupt_after(patched, STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
        patched.undo()
        # The epoch is logged and its best parameters are saved; the state is not.
        patched.setattr(checkpoints.Checkpoints, "save", kill)
        with pytest.raises(Killed):
            train(config, tmp_path / "parts")
    assert [record["epoch"] for record in read_log(tmp_path / "parts")] == [1, 2]
    assert_same(train(config, tmp_path / "parts"), whole)
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


def test_a_finished_run_is_not_trained_on(tmp_path, monkeypatch):
    config = config_of()
    first = train(config, tmp_path)

    def step(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained on")

    monkeypatch.setattr(Placement, "advance", step)
    assert_same(train(config, tmp_path), first)


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    train(config_of(epochs=1), tmp_path / "parts")
    longer = train(config_of(epochs=3), tmp_path / "parts")
    assert_same(longer, train(config_of(epochs=3), tmp_path / "whole"))
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


def test_fewer_epochs_than_a_run_has_are_refused_and_nothing_changes(tmp_path):
    train(config_of(epochs=2), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(InputError, match=r"a run of 2 epochs.*training\.epochs=2 or more, not 1"):
        train(config_of(epochs=1), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_an_epoch_record_without_its_number_is_refused_with_the_file(tmp_path):
    train(config_of(epochs=1), tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 12}\n')
    with pytest.raises(InputError, match="no number of an epoch; repair or delete") as caught:
        train(config_of(epochs=1), tmp_path)
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

    monkeypatch.setattr(fitting, "CHUNK_SECONDS", 0.0)
    run = Run.of(config_of(epochs=1, checkpoint_minutes=1e-9))
    run.fit(lambda params: {}, store=Recording())
    assert saved == [*range(1, STEPS + 1), STEPS]


def test_another_configuration_is_refused_in_the_same_folder(tmp_path):
    train(config_of(epochs=1), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for other, field in [
        (config_of(epochs=1, seed=5), "config.seed=1, not 5"),
        (config_of("lrml", epochs=1), "config.model."),
        (config_of(epochs=1, learning_rate=0.5), "config.optimizer.learning_rate=0.03, not 0.5"),
    ]:
        with pytest.raises(InputError) as caught:
            train(other, tmp_path)
        assert field in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_signals_are_noted_and_afterwards_handled_as_before():
    previous = signal.getsignal(signal.SIGTERM)
    with fitting.StopRequest() as request:
        assert not request.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received
    assert signal.getsignal(signal.SIGTERM) is previous

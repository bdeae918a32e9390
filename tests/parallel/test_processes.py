"""Runs of several processes: the same numbers, one voice, and an end when one of them dies."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = f"--config={ROOT}/configs/embedded/cml.py"
SHARDED = ("--config.sharding.tables=sharded", "--config.sharding.user_parts=8")
REPLICATED = ("--config.sharding.user_parts=8",)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def started(cache: pathlib.Path, count: int, *flags: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of `launch/train.py` with two devices each; killed at the end."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("XLA", "JAX"))
    }
    environment |= {"JAX_NUM_CPU_DEVICES": "2", "HLR_JAX_CACHE": str(cache)}
    command = [sys.executable, str(ROOT / "launch" / "train.py"), CONFIG, *flags]
    if count > 1:
        command += [f"--coordinator_address=localhost:{free_port()}", f"--num_processes={count}"]
    processes = [
        subprocess.Popen(
            command + ([f"--process_id={number}"] if count > 1 else []),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run(cache: pathlib.Path, count: int, *flags: str) -> list[str]:
    """What each process prints, of a run that succeeds."""
    with started(cache, count, *flags) as processes:
        outputs = [process.communicate(timeout=240) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
    return [output for output, _ in outputs]


def told(workdir: pathlib.Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The records of the epochs and the test metrics."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    test = json.loads((workdir / "results.json").read_text())["test"]
    return list(map(json.loads, lines)), test


def assert_same(found: Any, expected: Any) -> None:
    (records, test), (expected_records, expected_test) = found, expected
    assert len(records) == len(expected_records)
    for record, wanted in zip(records, expected_records, strict=True):
        for name in wanted.keys() - {"seconds"}:
            np.testing.assert_allclose(record[name], wanted[name], rtol=1e-5, err_msg=name)
    # Two items of nearly the same score may change places.
    for name in ("users", "ndcg@10", "recall@10", "coverage@10"):
        np.testing.assert_allclose(test[name], expected_test[name], rtol=0.01, err_msg=name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache")


def test_two_processes_train_and_go_on_as_one_does(tmp_path, cache):
    """Replicated; sharded; and two epochs of one kind followed by two of another."""
    epochs = ("--config.training.epochs=2", "--config.training.epochs=4")
    run(cache, 1, *REPLICATED, epochs[1], f"--workdir={tmp_path}/one")
    expected = told(tmp_path / "one")
    assert expected[0][-1]["train_loss"] < 0.99 * expected[0][0]["train_loss"]

    talking, silent = run(cache, 2, *SHARDED, epochs[1], f"--workdir={tmp_path}/sharded")
    assert "ndcg@10" in talking
    assert "ndcg@10" not in silent
    assert_same(told(tmp_path / "sharded"), expected)

    run(cache, 2, *REPLICATED, epochs[0], f"--workdir={tmp_path}/mixed")
    first = told(tmp_path / "mixed")[0]
    assert [record["epoch"] for record in first] == [1, 2]
    run(cache, 1, *SHARDED, epochs[1], f"--workdir={tmp_path}/mixed")
    assert_same(told(tmp_path / "mixed"), expected)


def test_when_a_process_dies_the_others_stop_and_the_run_can_go_on(tmp_path, cache):
    flags = (*SHARDED, f"--workdir={tmp_path}/run")
    log = tmp_path / "run" / "metrics.jsonl"
    with started(cache, 2, *flags, "--config.training.epochs=100000") as (first, second):
        deadline = time.monotonic() + 120
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline, first.poll()
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 3, errors
    (last,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "of the run has stopped" in last
    assert "the same command" in last

    done = len(log.read_text().splitlines())
    run(cache, 1, *flags, f"--config.training.epochs={done + 2}", "--config.training.patience=0")
    records, test = told(tmp_path / "run")
    assert [record["epoch"] for record in records] == list(range(1, done + 3))
    assert test["users"] > 0


def test_an_interrupt_of_one_process_saves_and_ends_all(tmp_path, cache):
    flags = (*SHARDED, f"--workdir={tmp_path}/run", "--config.training.epochs=100000")
    log = tmp_path / "run" / "metrics.jsonl"
    with started(cache, 2, *flags, "--config.training.patience=0") as processes:
        deadline = time.monotonic() + 120
        while not log.exists():
            assert time.monotonic() < deadline, processes[0].poll()
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 130, errors
            assert "goes on from the last checkpoint" in errors
    assert list((tmp_path / "run" / "checkpoints" / "latest").iterdir())


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (
            ("--coordinator_address=localhost:1234", "--num_processes=2", "--process_id=2"),
            "--process_id=2: use 0 to 1",
        ),
        (
            ("--coordinator_address=somewhere", "--num_processes=2"),
            "--coordinator_address=somewhere: write host:port of process 0",
        ),
        (("--coordinator_address=auto",), "--coordinator_address=auto: the processes did not find"),
    ],
    ids=["number", "address", "nothing to detect"],
)
def test_wrong_flags_are_told_in_a_line(tmp_path, cache, flags, fault):
    with started(cache, 1, *flags, f"--workdir={tmp_path}/run") as (process,):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"error: {fault}")
    assert not (tmp_path / "run").exists()


def test_lists_of_processes_are_joined_in_order(monkeypatch):
    """By what two processes would send each other."""
    from hlr_jax.parallel import processes

    sent = [np.arange(3.0), np.arange(10.0, 15.0)]

    def gathered(tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if tree["x"].ndim == 0:
            return {"x": np.array([3, 5])}
        assert tree["x"].shape == (5,)
        return {"x": np.stack([np.pad(x, (0, 5 - len(x)), constant_values=-7) for x in sent])}

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gathered)
    joined = processes.joined({"x": sent[0]})["x"].tolist()
    assert joined == list(itertools.chain(*(x.tolist() for x in sent)))

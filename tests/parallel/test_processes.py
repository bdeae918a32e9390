"""Runs of several processes: the same numbers, one voice, and an end when one of them dies."""

import contextlib
import dataclasses
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
from support import xla_flags

from hlr_jax.config import ShardingConfig, files
from hlr_jax.errors import InputError
from hlr_jax.parallel import processes
from hlr_jax.runs import experiment

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"{ROOT}/configs/embedded.py:cml"
SHARDED = ("--config.sharding.tables=sharded", "--config.sharding.user_parts=8")
REPLICATED = ("--config.sharding.user_parts=8",)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, str]:
    """Of the processes: two devices each; programs of an earlier run of the tests are found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX")}
    changes = {
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join(xla_flags.known()),
        "HLR_JAX_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    if getattr(pytestconfig, "cache", None) is not None:
        changes["JAX_COMPILATION_CACHE_DIR"] = str(pytestconfig.cache.mkdir("jax"))
        changes["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    return kept | changes


@contextlib.contextmanager
def started(
    environment: dict[str, str], count: int, *flags: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of `launch/train.py`; killed at the end."""
    command = [sys.executable, str(ROOT / "launch" / "train.py"), f"--config={CONFIG}", *flags]
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


def run(environment: dict[str, str], count: int, *flags: str) -> list[str]:
    """What each process prints, of a run that succeeds."""
    with started(environment, count, *flags) as processes:
        outputs = [process.communicate(timeout=240) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
    return [output for output, _ in outputs]


def run_here(workdir: pathlib.Path, epochs: int, tables: str = "replicated") -> None:
    """The same run by this process alone, on its eight devices."""
    config = files.load(CONFIG)
    config = dataclasses.replace(
        config,
        sharding=ShardingConfig(tables=tables, user_parts=8),
        training=dataclasses.replace(config.training, epochs=epochs, patience=0),
    )
    experiment.train_and_evaluate(config, workdir, show_progress=False)


def wait_for(log: pathlib.Path, records: int, process: subprocess.Popen[str]) -> None:
    """Return when so many epochs are in the log."""
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < records:
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.1)


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


def test_two_processes_train_and_go_on_as_one_does(tmp_path, environment):
    """Two epochs with replicated tables, then two with sharded ones; and one process after both."""
    run_here(tmp_path / "one", 4)
    expected = told(tmp_path / "one")
    assert expected[0][-1]["train_loss"] < 0.99 * expected[0][0]["train_loss"]

    flags = ("--config.training.patience=0", f"--workdir={tmp_path}/two")
    run(environment, 2, *REPLICATED, "--config.training.epochs=2", *flags)
    first = told(tmp_path / "two")[0]
    assert [record["epoch"] for record in first] == [1, 2]
    talking, silent = run(environment, 2, *SHARDED, "--config.training.epochs=4", *flags)
    assert "ndcg@10" in talking
    assert "ndcg@10" not in silent
    assert_same(told(tmp_path / "two"), expected)

    run_here(tmp_path / "one", 5)
    run_here(tmp_path / "two", 5, "sharded")
    assert_same(told(tmp_path / "two"), told(tmp_path / "one"))


def test_when_a_process_dies_the_others_stop_and_the_run_can_go_on(tmp_path, environment):
    workdir = tmp_path / "run"
    flags = (*SHARDED, f"--workdir={workdir}", "--config.training.patience=0")
    log = workdir / "metrics.jsonl"
    with started(environment, 2, *flags, "--config.training.epochs=100000") as (first, second):
        wait_for(log, 2, first)
        second.send_signal(signal.SIGKILL)
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 3, errors
    (last,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "of the run has stopped" in last
    assert "the same command" in last

    done = len(log.read_text().splitlines())
    run_here(workdir, done + 2, "sharded")
    records, test = told(workdir)
    assert [record["epoch"] for record in records] == list(range(1, done + 3))
    assert test["users"] > 0


def test_an_interrupt_of_one_process_saves_and_ends_all(tmp_path, environment):
    flags = (*SHARDED, f"--workdir={tmp_path}/run", "--config.training.epochs=100000")
    with started(environment, 2, *flags, "--config.training.patience=0") as processes:
        wait_for(tmp_path / "run" / "metrics.jsonl", 1, processes[0])
        processes[1].send_signal(signal.SIGTERM)
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 130, errors
            assert "goes on from the last checkpoint" in errors
    assert list((tmp_path / "run" / "checkpoints" / "latest").iterdir())


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "count", "number", "fault"),
    [
        ("localhost:1234", 2, 2, "--process_id=2: use 0 to 1"),
        ("somewhere", 2, 0, "--coordinator_address=somewhere: write host:port of process 0"),
    ],
)
def test_wrong_numbers_and_addresses_are_refused_in_a_line(address, count, number, fault):
    with pytest.raises(InputError) as caught:
        processes.connect(address, count, number)
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)
    assert not processes.are_joined()


def test_where_nothing_tells_of_other_processes_a_line_says_so(tmp_path, environment):
    workdir = tmp_path / "run"
    flags = ("--coordinator_address=auto", f"--workdir={workdir}")
    with started(environment, 1, *flags) as (process,):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    fault = "error: --coordinator_address=auto: the processes did not find"
    assert errors.splitlines()[-1].startswith(fault)
    assert not workdir.exists()


def test_lists_of_processes_are_joined_in_order(monkeypatch):
    """By what two processes would send each other."""
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

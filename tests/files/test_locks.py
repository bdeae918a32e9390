"""One run at a time writes into a folder."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from support.small_runs import config_of, planted

from hlr_jax import baselines, files, locks
from hlr_jax.config import Config, DataConfig
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment
from hlr_jax.runs.trackers import Each


def test_a_folder_is_locked_once_and_as_before_afterwards(tmp_path):
    folder = tmp_path / "new" / "run"
    with locks.locked(folder):
        with pytest.raises(InputError) as caught, locks.locked(folder):
            pytest.fail("two have it")
        owner = rf"{re.escape(socket.gethostname())}, process {os.getpid()}, since \d{{4}}-.*"
        assert re.fullmatch(
            rf"--workdir={folder}: another run is writing there \({owner}\); wait for it, or use "
            "another folder",
            str(caught.value),
        )
        assert os.listdir(folder) == [".lock"]
    assert not (tmp_path / "new").exists()
    with locks.locked(folder):
        (folder / "kept").touch()
    assert os.listdir(folder) == ["kept"]


def test_the_system_gives_a_lock_of_a_killed_process_back(tmp_path):
    code = f"""
import pathlib, signal, os
from hlr_jax import locks
with locks.locked(pathlib.Path({str(tmp_path)!r})):
    print("locked", flush=True)
    signal.pause()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"process {owner.pid}, "), locks.locked(tmp_path):
            pytest.fail("two have it")
        owner.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == [".lock"]
    with locks.locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_its_owner_has_just_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    flock = fcntl.flock

    def removed_meanwhile(descriptor, how):
        monkeypatch.undo()
        (tmp_path / ".lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with (
        locks.locked(tmp_path),
        pytest.raises(InputError, match="another run"),
        locks.locked(tmp_path),
    ):
        pytest.fail("two have it")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_warned_of(number, tmp_path, monkeypatch, caplog):
    def unknown(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with locks.locked(tmp_path):
        assert f"{tmp_path}: the file system has no locks" in caplog.text


def test_folders_that_cannot_be_written_to_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="is a file; name a folder"),
        locks.locked(tmp_path / "file"),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"cannot be written to \(Not a directory\)"),
        locks.locked(tmp_path / "file" / "run"),
    ):
        pass

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", no_room)
    with (
        pytest.raises(InputError, match=r"cannot be written to \(No space left on device\)"),
        locks.locked(tmp_path / "run"),
    ):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed_from_the_folder_and_those_in_it(tmp_path, monkeypatch):
    for place in (tmp_path, tmp_path / "refit"):
        place.mkdir(exist_ok=True)
        with monkeypatch.context() as patched:
            process = subprocess.Popen(["true"])
            process.wait()
            patched.setattr(os, "getpid", lambda pid=process.pid: pid)
            files._beside(place / "config.json").touch()
    with locks.locked(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [".lock", "refit"]
        assert os.listdir(tmp_path / "refit") == []


def test_while_a_run_trains_nobody_else_writes_into_its_folder(tmp_path):
    folder, tried = tmp_path / "run", []

    def meanwhile(record):
        before = sorted(folder.iterdir())
        for other in (
            lambda: experiment.train(config_of(), folder, planted(), show_progress=False),
            lambda: experiment.train_and_evaluate(config_of(), folder),
            lambda: baselines.tune_and_evaluate(
                "most_popular", Config(data=DataConfig("embedded")), folder
            ),
        ):
            with pytest.raises(InputError, match="another run is writing there"):
                other()
            tried.append(other)
        assert sorted(folder.iterdir()) == before

    config = config_of(epochs=1)
    experiment.train(config, folder, planted(), show_progress=False, callbacks=[Each(meanwhile)])
    assert len(tried) == 3
    assert not (folder / ".lock").exists()

"""Files are written whole or not at all, whatever happens meanwhile."""

import errno
import os
import shutil
import subprocess
import time
import types

import pytest

from hlr_jax import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_told_with_the_name_of_the_file_and_leaves_the_old_one(
    step, tmp_path, monkeypatch
):
    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr(os, step, no_room)
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.write_json(path, {})
    assert (caught.value.filename, caught.value.errno) == (str(path), errno.ENOSPC)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["results.json"]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "mine"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("free", "said"), [(1, "the disk is on fire"), (0, "No space left on device")]
)
def test_an_error_without_a_number_is_told_with_the_name_of_the_file(
    free, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    with (
        pytest.raises(OSError, match=said) as caught,
        files.replacing(tmp_path / "mine"),
    ):
        raise OSError("the disk is on fire")
    assert caught.value.filename == str(tmp_path / "mine")


def test_a_file_system_that_cannot_wait_for_the_disk_is_written_to(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unknown)
    files.write_text(tmp_path / "text", "new")
    assert (tmp_path / "text").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_the_old_folder_stays_where_the_new_one_cannot_take_its_place(error, tmp_path, monkeypatch):
    folder, rename = tmp_path / "data", os.rename
    folder.mkdir()
    (folder / "old").touch()

    def only_aside(source, target):
        if target == folder and source.suffix == ".tmp":
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", only_aside)
    with pytest.raises(type(error)), files.replacing_folder(folder) as unfinished:
        (unfinished / "new").touch()
    assert names(tmp_path) == ["data"]
    assert names(folder) == ["old"]
    monkeypatch.undo()
    with files.replacing_folder(folder) as unfinished:
        (unfinished / "new").touch()
    assert names(tmp_path) == ["data"]
    assert names(folder) == ["new"]


@pytest.fixture
def dead(tmp_path, monkeypatch):
    """Names what a process of this machine that has ended was writing."""
    process = subprocess.Popen(["true"])
    process.wait()

    def begin(name: str, kind: str = "tmp"):
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: process.pid)
            return files._beside(tmp_path / name, kind)

    return begin


def test_what_dead_writers_left_is_removed(dead, tmp_path):
    dead("config.json").touch()
    (dead("data") / "part").mkdir(parents=True)
    (tmp_path / ".config.json").touch()  # Of somebody else.
    living = files._beside(tmp_path / "config.json")
    living.touch()
    files.remove_unfinished(tmp_path)
    assert names(tmp_path) == sorted([".config.json", living.name])
    files.remove_unfinished(tmp_path / "nowhere")


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_stepped_aside_gets_its_place_back_if_it_is_free(is_replaced, dead, tmp_path):
    old = dead("data", "old")
    old.mkdir()
    (old / "old").touch()
    if is_replaced:
        (tmp_path / "data").mkdir()
    files.remove_unfinished(tmp_path)
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ([] if is_replaced else ["old"])


def test_what_another_machine_writes_is_removed_after_a_day(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(files, "_machine", lambda: "0123abcd")
        young, old = (files._beside(tmp_path / name) for name in ("young", "old"))
    for path, hours in ((young, 23), (old, 25)):
        path.touch()
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
    files.remove_unfinished(tmp_path)
    assert names(tmp_path) == [young.name]

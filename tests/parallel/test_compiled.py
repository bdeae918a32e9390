"""Compiled programs are kept whole, checked when they are read, and not too many."""

import errno
import os
import pathlib
import subprocess
import sys
import time

import pytest
from jax._src import compilation_cache

from hlr_jax.parallel.compiled import CompiledPrograms, use_for

CODE = """
import jax
from hlr_jax.parallel import devices
devices.keep_compiled_programs()
print(jax.jit(lambda x: x + 1)(1.0))
"""


def run(cache: pathlib.Path, **environment: str) -> str:
    """Compile something in a process of its own; what it logs."""
    kept = {k: value for k, value in os.environ.items() if not k.startswith(("XLA", "JAX"))}
    kept |= {"HLR_JAX_CACHE": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr
    return done.stderr


def test_a_damaged_program_is_compiled_once_more_and_replaced(tmp_path):
    assert run(tmp_path) == ""
    (kept,) = tmp_path.glob("compiled-*/*.program")
    whole = kept.stat()
    assert run(tmp_path) == ""
    assert kept.stat().st_ino == whole.st_ino  # Read, not written.
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert f"{kept}: the compiled program is damaged; it is compiled again" in run(tmp_path)
    assert kept.stat().st_size > 100
    assert run(tmp_path) == ""


def test_a_fault_in_the_bound_is_told_in_one_line(tmp_path):
    command = [sys.executable, "-m", "hlr_jax", "train", "--config=embedded/cml"]
    environment = os.environ | {"HLR_JAX_CACHE": str(tmp_path), "HLR_JAX_CACHE_MB": "much"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: HLR_JAX_CACHE_MB=much: use a number of megabytes, as 10000\n"


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ],
    ids=["empty", "short", "cut", "longer", "flipped checksum", "flipped"],
)
def test_what_is_not_what_was_written_is_not_returned(harm, tmp_path, caplog):
    cache = CompiledPrograms(tmp_path, 10**6)
    cache.put("key", b"program")
    assert cache.get("key") == b"program"
    (file,) = tmp_path.iterdir()
    file.write_bytes(harm(file.read_bytes()))
    assert cache.get("key") is None
    assert "is damaged" in caplog.text
    assert not file.exists()
    cache.put("key", b"program again")
    assert cache.get("key") == b"program again"
    cache.put("key", b"another")
    assert cache.get("key") == b"another"
    os.rename(file, tmp_path / "other.program")
    assert cache.get("other") is None
    assert cache.get("key") is None


def test_those_used_longest_ago_go_first(tmp_path):
    (tmp_path / "xla_folder").mkdir()
    (tmp_path / "of_jax-cache").write_bytes(bytes(100))
    cache = CompiledPrograms(tmp_path, 1000)
    for name in "abc":
        cache.put(name, bytes(250))
    for age, name in enumerate(["c.program", "a.program", "b.program", "of_jax-cache"], start=1):
        then = time.time() - 60 * age
        os.utime(tmp_path / name, (then, then))
    assert cache.get("b") == bytes(250)
    cache.put("d", bytes(250))
    assert [name for name in "abcd" if cache.get(name)] == ["b", "c", "d"]
    assert sorted(os.listdir(tmp_path)) == ["b.program", "c.program", "d.program", "xla_folder"]
    cache.put("e", bytes(1000))
    assert cache.get("e") is None
    assert cache.get("d") == bytes(250)


def test_a_full_disk_is_warned_of_once(tmp_path, monkeypatch, caplog):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = CompiledPrograms(tmp_path, 10**6)
    monkeypatch.setattr(os, "fsync", no_room)
    for name in "abc":
        cache.put(name, b"program")
    assert [record.getMessage() for record in caplog.records] == [
        f"compiled programs are not kept in {tmp_path}: No space left on device"
    ]
    assert not os.listdir(tmp_path)


def test_jax_has_a_place_for_it_and_other_folders_keep_jaxs_own(tmp_path, monkeypatch):
    """Where this fails, a new JAX has moved it: see `use_for`."""
    own = compilation_cache.get_file_cache
    monkeypatch.setattr(compilation_cache, "get_file_cache", own)  # And back at the end.
    assert use_for(tmp_path)
    cache, path = compilation_cache.get_file_cache(str(tmp_path))
    assert isinstance(cache, CompiledPrograms)
    assert path == str(tmp_path)
    other, _ = compilation_cache.get_file_cache(str(tmp_path / "other"))
    assert isinstance(other, compilation_cache.LRUCache)


@pytest.mark.parametrize("moved", ["gone", "another"])
def test_jaxs_own_cache_serves_where_its_place_has_moved(moved, tmp_path, monkeypatch):
    if moved == "gone":
        monkeypatch.delattr(compilation_cache, "get_file_cache")
    else:
        monkeypatch.setattr(compilation_cache, "get_file_cache", lambda path, size: None)
    assert not use_for(tmp_path)

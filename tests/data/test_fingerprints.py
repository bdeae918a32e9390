"""Files are told apart by their content, which is read once for each state of a file."""

import json
import os
import shutil
import time

import pytest
from data_files import ratings, write

from hlr_jax.config import DataConfig
from hlr_jax.data import fingerprints as module
from hlr_jax.data import load, raw
from hlr_jax.data.fingerprints import check_unchanged, fingerprints
from hlr_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(module, "_SETTLED_SECONDS", -60)


@pytest.fixture
def was_read(monkeypatch):
    """Which files are read."""
    read, digest = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda path: read.append(path.name) or digest(path))
    return read


def test_the_content_is_read_once(tmp_path, settled, was_read):
    path = write(tmp_path / "a", "content")
    first = fingerprints([path])
    assert fingerprints([path]) == first
    assert was_read == ["a"]
    os.utime(path, (1, 1))
    assert fingerprints([path])[path].digest == first[path].digest
    assert was_read == ["a", "a"]


def test_a_change_is_noticed_where_length_and_time_stay(tmp_path, settled):
    path = write(tmp_path / "a", "content")
    before, first = path.stat(), fingerprints([path])
    write(path, "Content")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert fingerprints([path])[path].digest != first[path].digest


def test_a_file_in_the_place_of_another_is_noticed(tmp_path, settled):
    path = write(tmp_path / "a", "content")
    first = fingerprints([path])
    other = write(tmp_path / "b", "Content")
    shutil.copystat(path, other)
    os.replace(other, path)
    assert fingerprints([path])[path].digest != first[path].digest


def test_what_was_just_changed_is_read_again(tmp_path, was_read, monkeypatch):
    path = write(tmp_path / "a", "content")
    for _ in range(2):
        fingerprints([path])
    assert was_read == ["a", "a"]
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3 * 10**9)
    for _ in range(2):
        fingerprints([path])
    assert was_read == ["a", "a", "a"]


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b'{"a"', b"[" * 100_000, b"\xff", "entries", "numbers"],
    ids=lambda content: str(content)[:12],
)
def test_what_is_remembered_may_be_damaged(content, folders, tmp_path, settled, was_read):
    path = write(tmp_path / "a", "content")
    first = fingerprints([path])
    place = folders[1] / "fingerprints.json"
    known = json.loads(place.read_bytes())
    if content == "entries":
        content = json.dumps(dict.fromkeys(known, None)).encode()
    elif content == "numbers":
        content = json.dumps({k: [*v[:-2], 0, v[-1]] for k, v in known.items()}).encode()
    place.write_bytes(content)
    assert fingerprints([path]) == first
    assert was_read == ["a", "a"]
    assert json.loads(place.read_bytes()) == known


def test_a_bounded_number_is_remembered(folders, tmp_path, settled, monkeypatch):
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    paths = [write(tmp_path / name, name) for name in "abc"]
    fingerprints(paths)
    known = json.loads((folders[1] / "fingerprints.json").read_bytes())
    assert list(known) == [str(path) for path in paths[1:]]


def test_a_file_that_changes_while_it_is_read_is_refused(table, tmp_path, monkeypatch):
    path = write(tmp_path / "a", "content")
    found = fingerprints([path])
    check_unchanged(found)
    write(path, "more content")
    with pytest.raises(InputError, match="a: has changed while it was read; run again"):
        check_unchanged(found)
    read = raw.read

    def changed_meanwhile(*arguments):
        write(table, ratings(num_users=13))
        return read(*arguments)

    monkeypatch.setattr(raw, "read", changed_meanwhile)
    with pytest.raises(InputError, match=r"u\.data: has changed while it was read"):
        load(DataConfig(name="ml_100k", core=2))
    monkeypatch.undo()


def test_data_of_changed_files_of_the_same_length_and_time_are_not_used(table, settled):
    config = DataConfig(name="ml_100k", core=0, min_rating=0.0)
    before, first = table.stat(), load(config)
    text = table.read_text()
    user = text.partition("\t")[0]
    write(table, text.replace(f"{user}\t", f"{'9' * len(user)}\t", 1))
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert table.stat().st_size == before.st_size
    assert load(config).digest != first.digest

"""Prepared data: stored, mapped into memory, and prepared again if damaged or out of date."""

import dataclasses
import json
import os
import shutil
import time

import numpy as np
import pytest
from data_files import ratings, write, write_split

from hlr_jax.config import DataConfig
from hlr_jax.data import load, loading, prepared, raw, registry
from hlr_jax.data.arrays import from_arrays
from hlr_jax.data.fingerprints import fingerprints
from hlr_jax.data.resolve import resolve
from hlr_jax.files import checksum

pytestmark = pytest.mark.usefixtures("folders")


def test_the_second_load_does_not_read_the_files(table, monkeypatch):
    config = DataConfig(name="ml_100k", core=2)
    first = load(config)
    monkeypatch.setattr(raw, "read", _must_not_be_called)
    second = load(config)
    for part in ("train", "valid", "test"):
        mine, yours = getattr(first, part), getattr(second, part)
        np.testing.assert_array_equal(mine.offsets, yours.offsets)
        np.testing.assert_array_equal(mine.items, yours.items)
        assert mine.num_items == yours.num_items
    np.testing.assert_array_equal(first.user_ids, second.user_ids)
    np.testing.assert_array_equal(first.popularity, second.popularity)
    assert first.digest == second.digest == dataclasses.replace(second, _stored=None).digest
    # Stored values are those of the stored ids and splits alone.
    renamed = dataclasses.replace(second, user_ids=second.user_ids + 1)
    assert renamed.digest != second.digest
    other = dataclasses.replace(second, train=second.valid)
    assert other.digest != second.digest
    np.testing.assert_array_equal(other.popularity, second.valid.popularity)


def _must_not_be_called(*_):
    raise AssertionError("the files were read")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes()[:200] + b"!!" + path.read_bytes()[202:]),
        lambda path: path.unlink(),
        lambda path: np.save(path, np.arange(3)),
        lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
        lambda path: (path.parent / "checksums.json").write_text("{}"),
        lambda path: (path.parent / "checksums.json").write_text("[1"),
        lambda path: (path.parent / "checksums.json").write_text("null"),
        lambda path: (path.parent / "checksums.json").write_text("[" * 100_000),
    ],
    ids=[
        "empty",
        "cut",
        "flipped",
        "incomplete",
        "another",
        "pickled",
        "no checksums",
        "damaged checksums",
        "checksums of nothing",
        "deep checksums",
    ],
)
def test_damaged_prepared_data_is_prepared_again(folders, table, harm):
    config = DataConfig(name="ml_100k", core=2)
    whole = load(config)
    items = np.array(whole.train.items)
    del whole  # whose arrays are the files
    (kept,) = (folders[1] / "prepared").iterdir()
    harm(kept / "train_items.npy")
    np.testing.assert_array_equal(load(config).train.items, items)
    assert from_arrays("x", prepared.restore(kept)) is not None


@pytest.mark.parametrize(
    "name", ["user_ids", "item_ids", "test_offsets", "given_items", "popularity", "digest"]
)
def test_prepared_data_without_an_array_is_prepared_again(folders, table, name):
    config = DataConfig(name="ml_100k", core=2)
    digest = load(config).digest
    (kept,) = (folders[1] / "prepared").iterdir()
    for sizes in ("listed", "not listed"):
        (kept / f"{name}.npy").unlink()
        if sizes == "not listed":
            checksums = json.loads((kept / "checksums.json").read_text())
            del checksums[name]
            (kept / "checksums.json").write_text(json.dumps(checksums))
        again = load(config)
        assert again.digest == digest
        assert (kept / f"{name}.npy").exists()


def test_times_that_are_missing_or_of_another_length_are_prepared_again(folders, table):
    config = DataConfig(name="ml_100k", core=2, keep_times=True)
    times = load(config).train.times.tolist()
    assert len(set(times)) > 1
    (kept,) = (folders[1] / "prepared").iterdir()
    for name, harm in (
        ("train_times", "missing"),
        ("valid_times", "missing"),
        ("train_times", "short"),
    ):
        checksums = json.loads((kept / "checksums.json").read_text())
        path = kept / f"{name}.npy"
        if harm == "missing":
            path.unlink()
            del checksums[name]
        else:
            np.save(path, np.arange(3, dtype=np.int32))
            checksums[name] = checksum(path)
        (kept / "checksums.json").write_text(json.dumps(checksums))
        assert load(config).train.times.tolist() == times


def test_a_folder_has_the_arrays_and_the_recipe(folders, table):
    load(DataConfig(name="ml_100k", core=2))
    (kept,) = (folders[1] / "prepared").iterdir()
    assert {path.suffix for path in kept.iterdir()} == {".json", ".npy"}
    recipe = kept / "recipe.json"
    assert json.loads(recipe.read_text())["config"]["core"] == 2


def test_every_field_changes_the_key(folders, table):
    write_split(folders[0] / "mine")
    write(table.parent / "u.item", "100|A|x|x|x|0|1\n")
    base = DataConfig(name="ml_100k", core=2, min_rating=1.0)
    other = {
        "min_rating": 2.0,
        "core": 3,
        "item_core": 1,
        "features": "own",
        "split": "per_user",
        "valid_fraction": 0.1,
        "test_fraction": 0.3,
        "split_seed": 1,
        "keep_times": True,
        "predefined": "mine",
    }
    fixed = dataclasses.replace(base, predefined="mine", valid_split="per_user")
    keys = {_key(base), _key(fixed)} | {
        _key(dataclasses.replace(base, **{f: v})) for f, v in other.items()
    }
    path = str(write(table.parent / "own.tsv", "a\tb\tc\td\tuser\titem\n"))
    own = DataConfig(name="file", path=path)
    changed = {
        "format": "tsv",
        "user_column": "a",
        "item_column": "b",
        "rating_column": "c",
        "timestamp_column": "d",
        "separator": "tab",
        "encoding": "latin-1",
        "decimal": ",",
        "on_bad_row": "drop",
    }
    keys |= {_key(own)} | {_key(dataclasses.replace(own, **{f: v})) for f, v in changed.items()}
    assert len(keys) == len(other) + len(changed) + 3
    # With `join_valid`, train and valid are prepared apart and joined later.
    tried = set(other) | set(changed) | {"name", "path", "join_valid", "valid_split"}
    assert tried == {field.name for field in dataclasses.fields(DataConfig)}


def test_a_filter_may_be_given_or_the_data_sets_own(table):
    assert _key(DataConfig(name="ml_100k", min_rating=4.0, core=10, split="random")) == _key(
        DataConfig(name="ml_100k")
    )


def _key(config):
    resolved = resolve(config, progress=False)
    files = fingerprints(loading._files(resolved))
    return prepared.folder_name("x", loading._recipe(config, resolved, files))


def test_data_of_a_file_that_was_moved_or_touched_are_found_again(folders, monkeypatch):
    lines = [f"{user},{item}\n" for user in range(5) for item in range(user, user + 5)]
    table = write(folders[0] / "own.csv", "".join(["user,item\n", *lines]))
    config = DataConfig(name="file", path=str(table))
    first = load(config)
    os.utime(table, (1, 1))
    moved = folders[0] / "moved" / table.name
    moved.parent.mkdir()
    shutil.copy(table, moved)
    monkeypatch.setattr(raw, "read", _must_not_be_called)
    assert load(config).digest == first.digest
    assert load(dataclasses.replace(config, path=str(moved))).digest == first.digest


def test_data_that_are_not_used_go_when_the_cache_is_full(folders, table, monkeypatch):
    kept = folders[1] / "prepared"

    def folder_of(seed):
        before = set(kept.iterdir()) if kept.exists() else set()
        load(DataConfig(name="ml_100k", core=2, split_seed=seed))
        return (set(kept.iterdir()) - before).pop()

    used, unused, recent = (folder_of(core) for core in (2, 3, 4))
    for folder, days in ((used, 30), (unused, 20), (recent, 6)):
        then = time.time() - days * 24 * 3600
        os.utime(folder, (then, then))
    load(DataConfig(name="ml_100k", core=2, split_seed=2))
    monkeypatch.setenv("HLR_JAX_CACHE_MB", "0")
    newest = folder_of(1)
    assert set(kept.iterdir()) == {used, recent, newest}


def test_changed_files_are_read_again(table):
    config = DataConfig(name="ml_100k", core=2, min_rating=0.0)
    before = load(config)
    write(table, ratings(num_users=13))
    assert load(config).num_users == before.num_users + 1
    titled = write(table.parent / "u.item", "101|Alpha|x\n")
    assert "Alpha" in load(config).item_titles
    write(titled, "101|Alphabet|x\n")
    assert "Alphabet" in load(config).item_titles


def test_a_changed_description_changes_the_key(table, monkeypatch):
    config = DataConfig(name="ml_100k", core=2)
    before = _key(config)
    changed = dataclasses.replace(registry.specs()["ml_100k"], format="csv")
    monkeypatch.setitem(registry.specs(), "ml_100k", changed)
    assert _key(config) != before


def test_a_cache_that_cannot_be_written_is_not_used(folders, table, caplog):
    write(folders[1], "a file in the way")
    assert load(DataConfig(name="ml_100k", core=2)).num_users == 12
    assert "is not kept" in caplog.text


def test_folder_names_are_safe():
    name = prepared.folder_name("../a b", {"x": 1})
    assert "/" not in name
    assert "." not in name
    assert prepared.folder_name("a", {"x": 1}) != prepared.folder_name("a", {"x": 2})

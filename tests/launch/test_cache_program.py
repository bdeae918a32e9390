"""What the cache folder holds is shown, and cleared by kind."""

import pytest
from support.launching import assert_refused

from hlr_jax.data import registry
from hlr_jax.errors import InputError
from hlr_jax.programs import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder with something of each kind, and something that is not the library's."""
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("HLR_JAX_CACHE_MB", "5")
    (name,) = registry.specs()["ml_100k"].folders[:1]
    for path, size in (
        ("compiled-0123abcd/a.program", 300_000),
        ("compiled-0123abcd/b.program", 200_000),
        ("prepared/x-1/items.npy", 1_500_000),
        (f"{name}/u.data", 2_000_000),
        ("mine/letter", 10),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(size))
    (tmp_path / "fingerprints.json").write_text("{}")
    return tmp_path


def test_what_there_is_is_shown(folder):
    assert cache.told().splitlines() == [
        f"{folder} (HLR_JAX_CACHE)",
        "  programs   0.5 MB of at most 5 MB (HLR_JAX_CACHE_MB), 2 entries",
        "  data       1.5 MB of at most 5 MB (HLR_JAX_CACHE_MB), 2 entries",
        "  downloads  2.0 MB, 1 entry",
    ]


@pytest.mark.parametrize("kind", ["programs", "data", "downloads"])
def test_a_kind_is_cleared_and_nothing_else(kind, folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    own = {"programs": "program", "data": "npy json", "downloads": "data"}[kind].split()
    lines = cache.told([kind]).splitlines()
    assert lines[0].startswith(f"cleared {kind}: ")
    assert next(line for line in lines[1:] if kind in line).split()[1] == "0.0"
    after = {path for path in folder.rglob("*") if path.is_file()}
    assert after == {path for path in before if path.suffix[1:] not in own}


def test_an_empty_folder_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "nothing"))
    assert "downloads  0.0 MB, 0 entries" in cache.told(["downloads", "data", "programs"])
    assert not (tmp_path / "nothing").exists()


def test_data_sets_of_the_users_own_are_not_removed(folder, monkeypatch):
    monkeypatch.setenv("HLR_JAX_DATA", str(folder))
    with pytest.raises(InputError, match="--clear=downloads: HLR_JAX_DATA names"):
        cache.told(["data", "downloads"])
    assert (folder / "prepared" / "x-1").exists()


def test_an_unknown_kind_is_refused(launch):
    assert_refused(launch("cache", "--clear=everything"), "--clear=everything: use programs, data")

"""Caches stay within their bounds; what was used longest ago goes first."""

import os
import time

import pytest

from hlr_jax import cache
from hlr_jax.errors import InputError


def entry(folder, name, size, age):
    (folder / name).mkdir()
    (folder / name / "content").write_bytes(bytes(size))
    then = time.time() - age
    os.utime(folder / name, (then, then))


@pytest.mark.parametrize(
    ("limit", "spare", "kept"),
    [
        (600, 0, ["old", "older", "young"]),
        (599, 0, ["old", "young"]),
        (350, 0, ["young"]),
        (99, 0, []),
        (99, 50, ["young"]),
    ],
)
def test_entries_go_until_the_others_fit(limit, spare, kept, tmp_path):
    for name, size, age in (("old", 200, 100), ("older", 100, 200), ("young", 300, 10)):
        entry(tmp_path, name, size, age)
    cache.keep_within(limit, tmp_path.iterdir(), spare)
    assert sorted(os.listdir(tmp_path)) == kept


def test_what_is_used_becomes_young(tmp_path):
    for name, age in (("a", 200), ("b", 100)):
        entry(tmp_path, name, 100, age)
    cache.mark_used(tmp_path / "a")
    cache.keep_within(100, [*tmp_path.iterdir(), tmp_path / "gone"])
    assert os.listdir(tmp_path) == ["a"]


def test_the_bound_is_a_number_of_megabytes(monkeypatch):
    monkeypatch.delenv("HLR_JAX_CACHE_MB", raising=False)
    assert cache.cache_limit() == 10**10
    monkeypatch.setenv("HLR_JAX_CACHE_MB", "20")
    assert cache.cache_limit() == 20 * 10**6
    for text in ("much", "-1", "1.5", "²"):
        monkeypatch.setenv("HLR_JAX_CACHE_MB", text)
        with pytest.raises(InputError, match=f"HLR_JAX_CACHE_MB={text}: use a number"):
            cache.cache_limit()

"""Folders without real data or network, and real data sets, each loaded once."""

import pytest
from data_files import ratings, write

from hlr_jax.config import DataConfig
from hlr_jax.data import fetch, load, prepared, synthetic
from hlr_jax.data.readers import blocks


def _offline(url):
    raise OSError("no network in tests")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An empty data folder, a cache folder that does not exist yet, and no network."""
    monkeypatch.setattr(fetch, "open_https", _offline)
    monkeypatch.setenv("HLR_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data", tmp_path / "cache"


@pytest.fixture
def table(folders):
    return write(folders[0] / "ml-100k" / "u.data", ratings())


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that every test crosses their borders."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)


@pytest.fixture(scope="session")
def embedded_frame():
    return synthetic.generate()


@pytest.fixture
def generated_once(embedded_frame, monkeypatch):
    """Load the embedded data set without generating it for every test."""
    monkeypatch.setattr(synthetic, "generate", lambda: embedded_frame)


@pytest.fixture(scope="session")
def load_real(data_folder, tmp_path_factory):
    """A function that loads a data set, unless its folder is not there; nothing is stored."""
    loaded = {}

    def load_once(folder, **fields):
        if not (data_folder / folder).is_dir():
            pytest.skip(f"{folder} is not in HLR_JAX_DATA")
        key = frozenset(fields.items())
        if key not in loaded:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(fetch, "open_https", _offline)
                patched.setenv("HLR_JAX_DATA", str(data_folder))
                patched.setenv("HLR_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
                patched.setattr(prepared, "save", lambda *_: None)
                loaded[key] = load(DataConfig(**fields), progress=False)
        # Features are large.
        return loaded.pop(key) if "features" in fields else loaded[key]

    return load_once

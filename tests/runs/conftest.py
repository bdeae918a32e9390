"""Folders of their own for runs that read tables."""

import pathlib
from collections.abc import Iterator

import pytest
from table_runs import table_text


@pytest.fixture(scope="module")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let data and caches be in folders that are empty at first."""
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HLR_JAX_CACHE", str(folder / "cache"))
        patched.setenv("HLR_JAX_DATA", str(folder / "data"))
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A table of interactions."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text(table_text())
    return path

"""Folders of their own for runs that read tables, and a run that may be damaged."""

import pathlib
import shutil
from collections.abc import Iterator

import pytest
from stopped_runs import EPOCHS
from support.small_runs import config_of, train
from table_runs import table_text

from hlr_jax.types import Params


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


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a run that has an epoch before it: copy it."""
    folder = tmp_path_factory.mktemp("stopped")
    for epochs in range(1, EPOCHS):
        # Every epoch is written: none gives way to the next.
        train(config_of(epochs=epochs), folder)
    return folder


@pytest.fixture(scope="session")
def whole() -> Params:
    """What the run selects if nothing happens to it."""
    return train(config_of(epochs=EPOCHS))


@pytest.fixture
def run(stopped: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of."""
    found: list[str] = []

    def note(message: str, *arguments: object) -> None:
        found.append(message % arguments)

    monkeypatch.setattr("absl.logging.warning", note)
    return found

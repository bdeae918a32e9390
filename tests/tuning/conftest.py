import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from support.planted import planted_of
from sweeps import ITEMS, MARGIN, USERS, Scripted, config_of

from hlr_jax.data.dataset import Dataset
from hlr_jax.runs import experiment
from hlr_jax.tuning import sweep


@pytest.fixture(autouse=True, scope="package")
def no_waiting_for_the_disk() -> Iterator[None]:
    """What a killed process wrote is there without, too."""

    def forget(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", forget)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", forget)


@pytest.fixture(scope="package")
def dataset() -> Dataset:
    """A user likes the 8 items of its group."""
    return planted_of(USERS, ITEMS, (5, 7, 8))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> Callable[..., Any]:
    """Sweeps whose trials report given values instead of training."""

    def search(workdir, values_of: Scripted, vary=(MARGIN,), **arguments: Any) -> Any:
        def train(config, dataset, callback):
            for epoch, value in enumerate(values_of(config), start=1):
                callback.on_epoch({"epoch": epoch, "valid_loss": -value, "valid_ndcg@10": value})

        arguments = {"dataset": dataset, "show_progress": False, "config": config_of()} | arguments
        ends = [arguments.pop(name, None) for name in ("trials", "minutes")]
        with monkeypatch.context() as patched:
            patched.setattr(experiment, "try_out", train)
            return sweep.search(
                arguments.pop("config"), workdir, vary, sweep.Budget(*ends), **arguments
            )

    return search

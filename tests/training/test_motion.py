"""Learning rates that are too high, and whose loss stays finite, are warned of once."""

import dataclasses
import functools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.small_runs import Run, config_of, interrupt_after, with_radius

from hlr_jax.config import Config
from hlr_jax.data import synthetic
from hlr_jax.data.dataset import Dataset
from hlr_jax.runs import experiment
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training import motion
from hlr_jax.training.store import Progress


@functools.cache
def data() -> Dataset:
    """What cannot be learned at once: planted groups settle at any rate."""
    return Dataset.from_frame(synthetic.generate(100, 120))


def of_rate(rate: float, geometry: str = "ball", model: str = "cml", **fields: Any) -> Config:
    config = config_of(model, negatives=4, learning_rate=rate, **{"batch_size": 64, **fields})
    return with_radius(config, 1.0, geometry)


def warnings_of(config: Config) -> list[str]:
    return list(Run.of(config, data()).fit()[1].warnings)


@pytest.mark.parametrize("rate", [10.0, 1e9])
@pytest.mark.parametrize("updates", ["dense", "sparse"])
def test_rows_that_every_step_throws_about_are_warned_of(rate, updates):
    config = of_rate(rate)
    optimizer = dataclasses.replace(config.optimizer, updates=updates)
    (warning,) = warnings_of(dataclasses.replace(config, optimizer=optimizer))
    assert warning.startswith(f"the learning rate ({rate:g}) is too high: in epoch 1 a step moves ")
    assert warning.endswith("set config.optimizer.learning_rate to a tenth of it, or less")
    assert "\n" not in warning


@pytest.mark.parametrize(
    ("rate", "geometry", "fault"),
    [
        (1e30, "ball", r"100% of the rows of the \w+ table have become 0"),
        (1e9, "lorentz", r"a step moves rows of the \w+ table by 0\.\d+ of their length"),
        (1e9, "sphere", r"rows of the \w+ table are \de\+\d+ times as long as the points"),
    ],
)
def test_other_geometries_and_faults(rate, geometry, fault):
    (warning,) = warnings_of(of_rate(rate, geometry))
    assert re.search(fault, warning)


@pytest.mark.parametrize(
    ("model", "geometry"), [("cml", "sphere"), ("items_only", "ball"), ("dpcml", "lorentz")]
)
def test_rates_that_train_are_not_warned_of(model, geometry):
    """Up to ten times what is usual; a model without rows of users, and one with several."""
    for rate in (1e-4, 0.03, 0.1):
        assert warnings_of(of_rate(rate, geometry, model)) == []


def test_a_warning_is_given_once_and_kept(tmp_path, monkeypatch):
    """In a run that goes on too."""
    config = of_rate(1e9)

    def progress():
        return Checkpoints(tmp_path / "checkpoints").progress()

    with monkeypatch.context() as patched:
        interrupt_after(patched, len(data().train) // 64 + 5)
        with pytest.raises(KeyboardInterrupt):
            experiment.train(config, tmp_path, data(), False)
    (warning,) = progress().warnings
    experiment.train(config, tmp_path, data(), False)
    assert progress().epochs == 3
    assert list(progress().warnings) == [warning]


def test_a_given_optimizer_is_named(monkeypatch):
    progress: list[Progress] = []
    fit = experiment.fit

    def noted(*args: Any) -> Any:
        found = fit(*args)
        progress.append(found[1])
        return found

    monkeypatch.setattr(experiment, "fit", noted)
    experiment.train(of_rate(0.1), None, data(), False, optimizer=optax.adam(1e9))
    (warning,) = progress[0].warnings
    assert "the learning rate (that of the optimizer that was given) is too high" in warning


def test_movement_is_that_of_the_rows_that_moved():
    """By hand: one of four rows of length 2 moves by 1."""
    run = Run.of(config_of())
    before = np.zeros((4, 6), np.float32)
    before[:, 0] = 2.0
    after = before.copy()
    after[1, 3] = 1.0
    found = motion._motion(run.model, jnp.asarray(before), jnp.asarray(after))
    assert float(found.movement) == pytest.approx(0.5)
    assert (float(found.stretch), float(found.at_zero)) == (1.0, 0.0)
    assert found.fault("item").startswith("a step moves rows of the item table by 0.50 of")

"""Loss or parameters that are no longer finite: said where, never stored, and gone back from."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.small_runs import (
    STEPS,
    Run,
    assert_same,
    config_of,
    interrupt_after,
    planted,
    read_log,
    train,
)

from hlr_jax.config import Config
from hlr_jax.errors import DivergedError
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training import loop
from hlr_jax.training.epoch import Recipe
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import MemoryStore, Progress

RATE = 0.03
advance = loop.advance


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, above: float = 0.0) -> list[tuple[int, int]]:
    """Spoil all parameters before this step of a run, where its learning rate is above a bound.

    Returns:
      The spans that are sent, filled as they are.
    """
    sent: list[tuple[int, int]] = []

    def spoiled(
        state: TrainState, rows: Any, span: Any, recipe: Recipe, placement: Placement
    ) -> TrainState:
        start, done = int(state.step), span[0]
        sent.append((start, start + span[1] - span[0]))
        place = done + step - start
        if done <= place < span[1] and float(recipe.optimizer.schedule.learning_rate) > above:
            state = advance(state, rows, (done, place), recipe, placement)
            state = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
            done = place
        return advance(state, rows, (done, span[1]), recipe, placement)

    monkeypatch.setattr(loop, "advance", spoiled)
    return sent


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["single steps", "growing spans"])
@pytest.mark.parametrize("step", [0, 5, STEPS - 1, STEPS + 6])
def test_the_first_loss_that_is_not_finite_is_said_by_its_step(step, seconds, monkeypatch):
    """However long the span is; at most one more span has been sent by then."""
    sent = spoil(monkeypatch, step)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", seconds)
    with pytest.raises(DivergedError) as caught:
        Run.of(config_of()).fit()
    epoch = 1 + step // STEPS
    said = f"the loss is no longer finite in step {step + 1}, in epoch {epoch}, which left such "
    assert str(caught.value).startswith(f"{said}numbers in item, ")
    assert "config.optimizer.learning_rate (now 0.03)" in str(caught.value)
    (spoiled,) = [i for i, (first, stop) in enumerate(sent[1:], 1) if first <= step < stop]
    assert len(sent) - 1 <= spoiled + 1


def test_parameters_that_no_loss_has_seen_are_named(monkeypatch):
    """After the last step of an epoch; the item table alone."""

    def spoiled(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        state = advance(state, rows, span, *args)
        if int(state.step) != STEPS:
            return state
        item = state.params["item"].at[3, 2].set(jnp.inf)
        return state.replace(params=state.params | {"item": item})

    monkeypatch.setattr(loop, "advance", spoiled)
    with pytest.raises(DivergedError, match=rf"^item is no longer finite after step {STEPS}, in"):
        Run.of(config_of()).fit()


def test_moments_of_the_optimizer_are_looked_at_too(monkeypatch):
    """Infinite ones let rows stand still, and no loss tells."""

    def spoiled(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        state = advance(state, rows, span, *args)
        if int(state.step) != STEPS:
            return state
        moments = jax.tree.map(lambda x: x + jnp.inf if x.ndim else x, state.opt_state)
        return state.replace(opt_state=moments)

    monkeypatch.setattr(loop, "advance", spoiled)
    with pytest.raises(
        DivergedError, match=r"^optimizer\.0\.mu\.item, .* and 1 more is no longer finite after"
    ):
        Run.of(config_of(epochs=1)).fit()


@pytest.mark.parametrize("name", ["loss", "ndcg@10"])
def test_validation_values_have_to_be_finite(name):
    """The first epoch would be the best for ever: nothing is better than what is no number."""

    class Kept(MemoryStore):
        def save_best(self, state: TrainState, progress: Progress) -> None:
            raise AssertionError

    values = {"loss": 1.0, name: math.nan}
    with pytest.raises(DivergedError, match=f"^{name} of the validation split .* after epoch 1,"):
        Run.of(config_of()).fit(lambda params: values, Kept())


class Looked(MemoryStore):
    """Refuses what is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def save(self, state: TrainState, progress: Progress) -> None:
        self.steps.append(int(state.step))
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state))


def test_no_state_is_stored_within_an_epoch_that_is_not_finite(monkeypatch):
    """Parameters of which no loss has been computed yet."""

    def spoiled(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        state = advance(state, rows, span, *args)
        if int(state.step) != 5:
            return state
        return state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))

    monkeypatch.setattr(loop, "advance", spoiled)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    store = Looked()
    with pytest.raises(DivergedError, match=r"^item, user is no longer finite after step 5,"):
        Run.of(config_of(checkpoint_minutes=1e-9)).fit(store=store)
    assert store.steps == [1, 2, 3, 4]


def with_rollback(epochs: int = 3, rollbacks: int = 3, **optimizer: Any) -> Config:
    config = config_of(
        epochs=epochs, on_nonfinite="rollback", rollbacks=rollbacks, learning_rate=RATE
    )
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **optimizer))


def test_a_rollback_goes_on_at_half_the_rate(monkeypatch):
    """From the start of the epoch: as a schedule that halves it with the second epoch."""
    halving = with_rollback(2, schedule="exponential", decay_rate=0.5)
    expected, _ = Run.of(halving).fit()
    spoil(monkeypatch, STEPS + 5, above=0.02)
    params, progress = Run.of(with_rollback(2)).fit()
    for found, wanted in zip(*map(jax.tree.leaves, (params, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert progress.rollbacks == 1
    (warning,) = progress.warnings
    assert f"no longer finite in step {STEPS + 6}, in epoch 2" in warning
    assert f"goes back to step {STEPS} and on with 0.5 times the learning rate" in warning


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[pathlib.Path, int], Progress]:
    """Train in a folder, interrupted after so many looks of the host (0: not), to the end."""
    results: list[Progress] = []
    fit = experiment.fit

    def noted(*args: Any) -> Any:
        params, progress = fit(*args)
        results.append(progress)
        return params, progress

    monkeypatch.setattr(experiment, "fit", noted)

    def run(folder: pathlib.Path, looks: int = 0) -> Progress:
        with monkeypatch.context() as patched:
            # Twice: at 0.03, and at 0.015.
            spoil(patched, STEPS + 5, above=0.01)
            if looks:
                interrupt_after(patched, looks)
                with pytest.raises(KeyboardInterrupt):
                    train(with_rollback(), folder)
            patched.undo()
            spoil(patched, STEPS + 5, above=0.01)
            train(with_rollback(), folder)
        return results[-1]

    return run


def test_a_resumed_run_goes_back_as_the_uninterrupted_one(tried, tmp_path):
    """Interrupted before the loss is no longer finite, in the epoch done again, and after it."""
    whole = tried(tmp_path / "whole")
    assert whole.rollbacks == len(whole.warnings) == 2
    params = experiment.train(with_rollback(), tmp_path / "whole", planted(), False).params
    log = read_log(tmp_path / "whole")
    assert [record["step"] for record in log] == [STEPS, 2 * STEPS, 3 * STEPS]
    for looks in (4, STEPS + 9, 3 * STEPS):
        folder = tmp_path / str(looks)
        resumed = tried(folder, looks)
        assert_same(train(with_rollback(), folder), params)
        assert read_log(folder) == log
        unlike = {"seconds": 0, "warnings": (), "log_checksum": 0}  # Seconds are logged too.
        assert resumed._replace(**unlike) == whole._replace(**unlike)
        assert list(resumed.warnings) == list(whole.warnings)


def test_rollbacks_are_bounded(tmp_path, monkeypatch):
    """What is left is the last epoch that was finite, with what had been tried."""
    spoil(monkeypatch, STEPS + 5)
    with pytest.raises(DivergedError) as caught:
        train(with_rollback(rollbacks=2), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "went back 2 times, all that config.training.rollbacks allows, down to 0.25 " in message
    progress = Checkpoints(tmp_path / "checkpoints").progress()
    assert (progress.epochs, progress.rollbacks) == (1, 2)
    monkeypatch.undo()
    assert [record["epoch"] for record in read_log(tmp_path)] == [1]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(train(with_rollback(), tmp_path)))


def test_the_remedy_of_a_run_that_stopped(tmp_path, monkeypatch):
    """The same command, told to go back."""
    spoil(monkeypatch, STEPS + 5, above=0.02)
    remedy = "config.training.on_nonfinite='rollback': the same command then goes on"
    with pytest.raises(DivergedError, match=remedy):
        train(config_of(learning_rate=RATE), tmp_path)
    train(with_rollback(), tmp_path)
    progress = Checkpoints(tmp_path / "checkpoints").progress()
    assert (progress.epochs, progress.rollbacks) == (3, 1)

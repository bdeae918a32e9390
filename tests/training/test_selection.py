"""Whole runs: the configuration alone decides them, and the best epoch is returned."""

import dataclasses
import signal

import jax
import numpy as np
import pytest
from support.small_runs import (
    BATCH,
    ITEMS,
    STEPS,
    USERS,
    Run,
    assert_same,
    config_of,
    differ,
    epoch_order,
    planted,
    read_log,
    train,
    with_radius,
)

from hlr_jax import files
from hlr_jax.config import TrainingConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError
from hlr_jax.runs import experiment
from hlr_jax.runs.trackers import Each
from hlr_jax.training import loop
from hlr_jax.training.loop import Record
from hlr_jax.training.state import Keys
from hlr_jax.training.store import Progress
from hlr_jax.types import Params


@pytest.mark.parametrize(
    ("epochs", "best_epoch", "patience", "is_over"),
    [(9, 9, 0, True), (8, 2, 0, False), (5, 2, 3, True), (5, 2, 4, False), (0, 0, 3, False)],
)
def test_a_run_is_over_after_its_epochs_or_without_patience(epochs, best_epoch, patience, is_over):
    training = TrainingConfig(epochs=9, patience=patience)
    assert Progress(epochs=epochs, best_epoch=best_epoch).is_over(training) == is_over


# --- the same configuration gives the same run ---------------------------------------------------


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_the_seed_decides_the_run(model, monkeypatch):
    """And not how often the host looks."""
    first, again = train(config_of(model)), train(config_of(model))
    assert_same(first, again)
    assert differ(first, train(config_of(model, seed=2)))
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    assert_same(train(config_of(model)), first)


def test_every_epoch_draws_again_and_reports_its_own_loss():
    # With a step size of nothing only the draws change the loss from epoch to epoch.
    records: list[Record] = []
    run = Run.of(with_radius(config_of(learning_rate=1e-30), 10.0))
    run.fit(on_epoch=records.append)
    losses = [record["train_loss"] for record in records]
    assert len(set(losses)) == 3
    for epoch, loss in enumerate(losses):
        key = jax.random.fold_in(Keys.of(run.config.seed).train, epoch)
        order_key, draw_key = jax.random.split(key)
        order = epoch_order(order_key, len(run.program.positives), BATCH)
        state = run.steps(run.state(), 0, STEPS, run.rows(1, order, draw_key))
        np.testing.assert_allclose(loss, state.mean_loss(), rtol=1e-5)


# --- selection -----------------------------------------------------------------------------------


class Scripted:
    """Validation values from a list; keeps the parameters it was shown."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values
        self.seen: list[Params] = []

    def __call__(self, params: Params) -> dict[str, float]:
        self.seen.append(jax.tree.map(np.array, params))
        value = self.values[len(self.seen) - 1]
        return {"loss": value} if self.name == "loss" else {"loss": 1.0, self.name: value}


@pytest.mark.parametrize(
    ("metric", "values", "patience", "epochs", "best"),
    [
        pytest.param("loss", [5.0, 4.0, 3.0, 3.5, 3.2], 0, 5, 3, id="lowest loss"),
        pytest.param(
            "ndcg@10", [0.1, 0.3, 0.2, 0.3], 0, 4, 2, id="highest metric, first of equals"
        ),
        pytest.param(
            "loss", [5.0, 4.0, 6.0, 6.0, 1.0], 2, 4, 2, id="two epochs without a better loss"
        ),
        pytest.param("loss", [5.0, 6.0, 4.0, 5.0, 3.0, 9.0], 2, 6, 5, id="patience starts again"),
        pytest.param("ndcg@10", [0.5, 0.5, 0.9], 1, 2, 1, id="equal is not better"),
        pytest.param("loss", [3.0, 2.0, 1.0], 1, 3, 3, id="better every time"),
    ],
)
def test_the_best_epoch_is_returned(metric, values, patience, epochs, best):
    config = config_of(selection_metric=metric, epochs=len(values), patience=patience)
    validate = Scripted(metric, values)
    records: list[Record] = []
    params, progress = Run.of(config).fit(validate, on_epoch=records.append)
    assert len(validate.seen) == progress.epochs == epochs
    assert progress.best_epoch == best
    assert progress.best[metric] == values[best - 1]
    assert_same(params, validate.seen[best - 1])
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    assert [record["step"] for record in records] == [STEPS * n for n in range(1, epochs + 1)]
    assert [record[f"valid_{metric}"] for record in records] == values[:epochs]


def test_a_real_metric_selects():
    records: list[Record] = []
    run = Run.of(config_of(selection_metric="ndcg@5", epochs=4))
    validate = experiment._validation(run.program, planted())
    params, progress = run.fit(validate, on_epoch=records.append)
    measured = [record["valid_ndcg@5"] for record in records]
    assert progress.best_epoch == 1 + int(np.argmax(measured))
    assert validate(params)["ndcg@5"] == max(measured)


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    nothing = Interactions.from_pairs(np.zeros(0), np.zeros(0), USERS, ITEMS)
    dataset = dataclasses.replace(planted(), valid=nothing)
    config = config_of(epochs=4, patience=1)
    kept = experiment.train(config, tmp_path, dataset, show_progress=False).params
    assert len(read_log(tmp_path)) == 4
    shorter = experiment.train(config_of(epochs=3), None, dataset, show_progress=False).params
    assert differ(kept, shorter)


# --- what callers get to know --------------------------------------------------------------------


@pytest.mark.parametrize("keeps_files", [False, True])
def test_a_caller_hears_of_every_epoch_and_may_end_the_training(keeps_files, tmp_path):
    workdir = tmp_path / "run" if keeps_files else None
    config, heard = config_of(epochs=3), []
    before = signal.getsignal(signal.SIGINT)

    def stop(record: Record) -> None:
        heard.append(record)
        if record["epoch"] == 2:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        experiment.train(config, workdir, planted(), show_progress=False, callbacks=[Each(stop)])
    assert [record["epoch"] for record in heard] == [1, 2]
    if workdir:
        assert files.read_json_lines(workdir / "metrics.jsonl") == heard
    # Signals mean again what they meant before.
    assert signal.getsignal(signal.SIGINT) is before

    whole: list[Record] = []
    experiment.train(config, None, planted(), show_progress=False, callbacks=[Each(whole.append)])
    losses = [record["valid_loss"] for record in whole]
    assert len(losses) == 3
    assert losses[:2] == [record["valid_loss"] for record in heard]


def test_a_loss_that_is_not_finite_names_the_learning_rate():
    config = config_of(learning_rate=3e38)
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, name="sgd")
    )
    with pytest.raises(DivergedError) as caught:
        train(config)
    message = str(caught.value)
    assert "\n" not in message
    assert "in epoch 1" in message
    assert "config.optimizer.learning_rate (now 3e+38)" in message
    assert "config.optimizer.gradient_clip" in message

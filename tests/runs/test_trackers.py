"""Who is told of a run, of what and in which order; with the real MLflow and W&B, offline."""

import csv
import json

import pytest
from support.planted import planted_of
from support.small_runs import config_of

from hlr_jax import Callback, InputError, train
from hlr_jax import config as configs
from hlr_jax.runs import trackers
from hlr_jax.runs.trackers import MLflow, TensorBoard, WandB

DATA = planted_of(24, 30, (6, 7, 9))


class Told(Callback):
    """Notes what it is told."""

    def __init__(self):
        self.notes = []

    def on_start(self, start):
        self.notes.append(("start", start.settings()))

    def on_epoch(self, record):
        self.notes.append(("epoch", record["epoch"]))

    def on_end(self, results):
        self.notes.append(("end", dict(results)))


@pytest.mark.parametrize("refit", [False, True])
def test_a_run_is_told_of_from_start_to_end(refit):
    told, config = Told(), config_of(epochs=3, refit=refit)
    train(config, None, DATA, False, [told])
    names = [name for name, _ in told.notes]
    assert names == ["start", "epoch", "epoch", "epoch", "end"]
    settings, results = told.notes[0][1], told.notes[-1][1]
    assert settings["model.dim"] == config.model.dim
    assert settings["dataset.users"] == 24
    assert results["epochs"] == 3
    assert results.keys() == {"epochs", "best_epoch", "best_valid_loss"}


def test_a_run_that_fails_says_so_at_its_end():
    class Broken(Callback):
        def on_epoch(self, record):
            raise RuntimeError("no more space")

    told = Told()
    with pytest.raises(RuntimeError, match="no more space"):
        train(config_of(epochs=3), None, DATA, False, [told, Broken()])
    assert told.notes[-1] == ("end", {"error": "RuntimeError: no more space"})


def test_a_function_is_no_callback():
    with pytest.raises(InputError, match=r"is no hlr_jax\.Callback; wrap"):
        trackers.Together([print])


def test_a_table_of_epochs_survives_a_resumed_run(tmp_path):
    for epochs in (2, 4):
        told = trackers.named(["csv"], tmp_path / "run")
        (tmp_path / "run").mkdir(exist_ok=True)
        train(config_of(epochs=epochs), tmp_path / "run", DATA, False, told)
    with open(tmp_path / "run" / "epochs.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    records = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == ["1", "2", "3", "4"]
    for line, record in zip(lines, records, strict=True):
        assert {name: float(value) for name, value in line.items()} == pytest.approx(record)


def test_tensorboard_gets_a_value_for_each_epoch(tmp_path):
    train(config_of(epochs=2), None, DATA, False, [TensorBoard(tmp_path)])
    (events,) = tmp_path.iterdir()
    assert events.read_bytes().count(b"train_loss") == 2


def test_mlflow_keeps_settings_epochs_and_the_end(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    config = config_of(epochs=2)
    train(config, None, DATA, False, [MLflow("mine", "first")])
    with pytest.raises(RuntimeError):
        train(config, None, DATA, False, [MLflow("mine", "second"), _raising()])
    (experiment,) = mlflow.MlflowClient().search_experiments(filter_string="name = 'mine'")
    runs = {
        run.info.run_name: run
        for run in mlflow.MlflowClient().search_runs([experiment.experiment_id])
    }
    first = runs["first"]
    assert first.info.status == "FINISHED"
    assert runs["second"].info.status == "FAILED"
    assert first.data.params["model.dim"] == str(configs.flat(config)["model.dim"])
    history = mlflow.MlflowClient().get_metric_history(first.info.run_id, "valid_loss")
    assert [metric.step for metric in history] == [1, 2]
    assert first.data.metrics["best_epoch"] in (1, 2)


def test_wandb_keeps_a_run_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(config_of(epochs=2), None, DATA, False, [WandB("mine", dir=str(tmp_path))])
    wandb.teardown()  # Its own process writes the last lines when it ends.
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = run.glob("*.wandb")
    content = log.read_bytes()
    assert b"valid_loss" in content
    assert b"best_epoch" in content


def test_one_process_of_several_tracks(tmp_path, monkeypatch):
    assert len(trackers.named(["csv"], tmp_path)) == 1
    monkeypatch.setattr(trackers.processes, "is_first", lambda: False)
    assert trackers.named(["csv"], tmp_path) == []
    with pytest.raises(InputError, match="--trackers=excel: use csv"):
        trackers.named(["excel"], tmp_path)


def test_what_is_not_there_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--trackers=excel: use csv, tensorboard, mlflow, wandb"):
        trackers.named(["csv", "excel"], tmp_path)
    for name, module in (("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(InputError, match=rf"needs pip install 'hlr_jax\[{name}\]'"):
            trackers.named([name], tmp_path)


def _raising():
    class Raising(Callback):
        def on_epoch(self, record):
            raise RuntimeError("stop")

    return Raising()

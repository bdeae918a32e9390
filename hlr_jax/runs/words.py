"""What a run says of itself: before training, and at its end."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hlr_jax.config import Config
from hlr_jax.data.dataset import Dataset
from hlr_jax.facts import as_text
from hlr_jax.files import read_json_lines
from hlr_jax.runs.trackers import Callback, Start


class Announcer(Callback):
    """Says what a run is about to do.

    Args:
      workdir: of the run.
      say: receives each text.
    """

    def __init__(self, workdir: str | pathlib.Path, say: Callable[[str], None] = print) -> None:
        self._workdir, self._say = pathlib.Path(workdir), say

    def on_start(self, start: Start) -> None:
        config, dataset = start.config, start.dataset
        done = len(read_json_lines(self._workdir / "metrics.jsonl"))
        facts = {
            "data": config.data.name if config.data.name != dataset.name else "",
            **dataset.facts(),
            **about_model(config, start.parameters),
            "training": _training(config),
            "epochs": _epochs(config, dataset),
            "devices": f"{jax.device_count()} ({jax.devices()[0].device_kind})",
            "writes to": str(self._workdir),
            "goes on": f"with a run that has {done} epochs already" if done else "",
        }
        self._say(as_text(f"{config.model.name} on {dataset.name}", facts) + "\n")

    def on_refit(self, epochs: int) -> None:
        self._say(f"refit, on training and validation together, for {epochs} epochs")


def about_model(config: Config, parameters: Mapping[str, int]) -> dict[str, str]:
    """Say what a model is and how large, in texts by name.

    Args:
      parameters: of its tables and its relation, as `num_parameters` counts them.
    """
    parts = {"user": "of users", "item": "of items", "relation": "of the relation"}
    counts = [f"{parameters[part]:,} {words}" for part, words in parts.items() if parameters[part]]
    return {
        "model": f"{config.model.name}, {config.model.dim} dimensions, geometry "
        f"{config.geometry.name}, loss {config.loss.name}",
        "parameters": f"{sum(parameters.values()):,}: {', '.join(counts)}",
    }


def _training(config: Config) -> str:
    optimizer, training = config.optimizer, config.training
    return (
        f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, batches of "
        f"{training.batch_size:,} {training.batch_of}, negatives {config.sampling.negatives}"
    )


def _epochs(config: Config, dataset: Dataset) -> str:
    training = config.training
    if not len(dataset.valid):
        return f"{training.epochs}; the last is kept, as there is no validation split"
    ends = ""
    if training.patience:
        ends = f" at most, or {training.patience} without a better one"
    return f"{training.epochs}{ends}; the best by valid {training.selection_metric} is kept"


def ended(config: Config, results: Mapping[str, Any]) -> str:
    """Say how a run went.

    Args:
      results: of `train_and_evaluate`.
    """
    done, training = results["train"], config.training
    select = training.selection_metric
    best = f"epoch {done['best_epoch']}"
    if done["best_valid"]:
        best += f", valid {select} {done['best_valid'][select]:.4g}"
    reasons = {
        "patience": f"{training.patience} epochs without a better valid {select} "
        "(config.training.patience)",
        "epochs": "all epochs were trained (config.training.epochs)",
    }
    diagnosis = results.get("diagnosis", {})
    relation = diagnosis.get("text", "").removeprefix("relation: ")
    speed = f"{done['interactions_per_second']:,} interactions/s"
    facts = {
        "trained": f"{done['epochs']} epochs in {done['seconds']:.1f} s, {speed}",
        "best": best,
        "stopped": reasons[done["stopped_by"]],
        "refit": f"{done['best_epoch']} epochs on training and validation together; test is of "
        "this model, valid of the one before"
        if training.refit
        else "",
        # Of a constant one a warning has said more.
        "relation": "" if diagnosis.get("kind") == "constant" else relation,
    }
    return as_text("", facts)

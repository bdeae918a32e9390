"""A small sweep, for tests of what becomes of trials and of resuming."""

from collections.abc import Callable, Sequence
from typing import Any

from hlr_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

USERS, ITEMS = 18, 24
MARGIN = "loss.margin=0.2:2.0"
# Values of the objective of each epoch, from the configuration of a trial.
Scripted = Callable[[Config], Sequence[float]]


def config_of(epochs: int = 2, objective: str = "ndcg@10", **fields: Any) -> Config:
    """CML that is trained by SGD on the planted data; `fields` are sections or the seed."""
    fields = {
        "training": TrainingConfig(
            epochs=epochs, batch_size=32, patience=0, selection_metric=objective
        ),
        **fields,
    }
    return Config(
        data=DataConfig(name="embedded"),
        model=ModelConfig(name="cml", dim=4),
        optimizer=OptimizerConfig(name="sgd"),
        **fields,
    )


def value_of(config: Config) -> list[float]:
    """One epoch, whose value is highest for a margin of 1."""
    return [1 - (config.loss.options["margin"] - 1) ** 2]


def tried(outcome: Any) -> list[Any]:
    """The values that the counted trials tried."""
    return [trial.parameters for trial in outcome.trials if trial.counts]

"""Settings for histories in order of time, by data set and model, chosen on validation.

    hlr-jax train --config=recent/ncf_ml_1m/recent_items --workdir=runs/ncf_recent

A step takes interactions, each with the items that its user took last before it, against the whole
catalogue. After the best epoch is known, the model is trained again on training and validation
together. Of `full_catalog/DATA/cml` the objective is the same but for the temperature.

Scores: docs/tables.md, settings `recent`, where a protocol has been run.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    as_config_dict,
)


class _Setting(NamedTuple):
    """What was chosen for `recent_items` on a data set.

    Attributes:
      rate: of learning, at first; it falls as a cosine over all epochs.
      history: the most items that are read.
      interactions: of a step.
    """

    dim: int
    temperature: float
    rate: float
    epochs: int
    history: int
    interactions: int = 1024


_DATA: Mapping[str, tuple[DataConfig, _Setting]] = {
    "ncf_ml_1m": (
        DataConfig(name="ncf_ml_1m", keep_times=True),
        _Setting(dim=256, temperature=0.2, rate=0.003, epochs=3, history=10),
    ),
    "amazon_hin": (
        DataConfig(name="amazon_hin", split="per_user_time", keep_times=True),
        _Setting(dim=400, temperature=0.18, rate=0.003, epochs=5, history=10),
    ),
}
_MODELS = ("history_mean", "recent_items")


def _config(data: str, model: str) -> Config:
    interactions, setting = _DATA[data]
    return Config(
        data=interactions,
        model=ModelConfig(model, setting.dim),
        geometry=GeometryConfig("sphere"),
        sampling=SamplingConfig("full_catalog", setting.history, "recent"),
        loss=LossConfig(
            name="softmax",
            user_weight_exponent=0.3,
            options={"temperature": setting.temperature},
        ),
        optimizer=OptimizerConfig(learning_rate=setting.rate, schedule="cosine"),
        training=TrainingConfig(
            epochs=setting.epochs,
            batch_size=setting.interactions,
            selection_metric="ndcg@10",
            refit=True,
        ),
    )


CONFIGS = {f"{data}/{model}": _config(data, model) for data in _DATA for model in _MODELS}


def get_config(name: str) -> ConfigDict:
    return as_config_dict(CONFIGS[name])

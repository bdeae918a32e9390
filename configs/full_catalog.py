"""Settings of the user-batched full softmax, by data set and model, chosen on validation.

    hlr-jax train --config=full_catalog/ml_1m/cml --workdir=runs/ml_1m_cml

A step takes some users, each with all of its interactions, against the whole catalogue. After the
best epoch is known, the model is trained again on training and validation together. Models share
what was chosen for CML on their data; what is their own stands under `_MODELS`. Memory models take
the ball, in which they are fast, and a memory whose slots stay apart; see docs/objectives.md.

Scores: docs/tables.md, settings `tuned-full`, where a protocol has been run.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    as_config_dict,
)


class _Setting(NamedTuple):
    """What was chosen for CML on a data set.

    Attributes:
      sphere, ball: temperatures; the former is that of models which take the sphere.
      rate: of learning, at first; it falls as a cosine over all epochs.
      users: of a step.
      geometry: of models that take either.
      metric: on validation, that selects the epoch.
    """

    sphere: float
    ball: float
    dim: int
    rate: float
    epochs: int
    user_weight_exponent: float = 0.3
    users: int = 32
    geometry: str = "sphere"
    metric: str = "ndcg@10"


_DATA: Mapping[str, tuple[DataConfig, _Setting]] = {
    "ml_100k": (
        DataConfig(name="ml_100k"),
        _Setting(0.35, 0.35, dim=400, rate=0.005, epochs=25, user_weight_exponent=0.4),
    ),
    "ml_1m": (DataConfig(name="ml_1m"), _Setting(0.25, 0.28, dim=800, rate=0.004, epochs=20)),
    "ml_latest_small": (
        DataConfig(name="ml_latest_small"),
        _Setting(0.3, 0.25, dim=400, rate=0.003, epochs=40),
    ),
    "lastfm_2k": (
        DataConfig(name="lastfm_2k"),
        _Setting(0.3, 0.25, dim=400, rate=0.003, epochs=40),
    ),
    "ml_1m_rating3": (
        DataConfig(name="ml_1m_rating3"),
        _Setting(0.25, 0.28, dim=400, rate=0.004, epochs=20),
    ),
    "amazon_hin": (
        DataConfig(name="amazon_hin", split="per_user_time"),
        _Setting(0.25, 0.35, dim=400, rate=0.005, epochs=40),
    ),
    "citeulike_t": (
        DataConfig(name="citeulike_t", core=5),
        _Setting(0.25, 0.2, dim=800, rate=0.003, epochs=20),
    ),
    "ncf_ml_1m": (
        DataConfig(name="ncf_ml_1m"),
        _Setting(0.15, 0.2, dim=800, rate=0.004, epochs=15),
    ),
    "gowalla": (
        DataConfig(name="gowalla", valid_split="per_user_last", valid_fraction=0.1),
        _Setting(
            *(0.2, 0.15),
            dim=320,
            rate=0.004,
            epochs=20,
            users=256,
            geometry="ball",
            metric="ndcg@20",
        ),
    ),
}


class _Own(NamedTuple):
    """What a model has of its own.

    Attributes:
      options: of the model.
      geometry: in which it is trained, if not in that of the data set.
      history: items of a user that it reads; 0 for the default.
      most_dimensions: it takes no more, for its cost.
    """

    options: Mapping[str, Any] = {}
    geometry: str = ""
    history: int = 0
    most_dimensions: int = 800


_APART = {"slots": 8, "slot_form": "orthogonal", "slot_norm": 0.1, "key_scale": 20.0}
_MODELS: Mapping[str, _Own] = {
    "cml": _Own(),
    "items_only": _Own(history=100),
    "history_mean": _Own(history=50),
    "transcf": _Own({"alpha_nbr": 0.1, "alpha_dist": 0.1}, "ball"),
    "adacml": _Own(geometry="ball", history=50, most_dimensions=200),
    "nearest_items": _Own(geometry="ball", history=50, most_dimensions=200),
    "lrml": _Own(_APART, "ball", most_dimensions=400),
    "hlr": _Own(_APART, "ball", history=20, most_dimensions=400),
    "hlrpp": _Own(_APART, "ball", history=20, most_dimensions=400),
}


def _config(data: str, model: str) -> Config:
    chosen, setting = _DATA[data]
    own = _MODELS[model]
    sampling = SamplingConfig(negatives="full_catalog")
    if own.history:
        sampling = dataclasses.replace(sampling, history_length=own.history)
    geometry = own.geometry or setting.geometry
    temperature = setting.sphere if geometry == "sphere" else setting.ball
    return Config(
        data=chosen,
        model=ModelConfig(
            name=model, dim=min(setting.dim, own.most_dimensions), options=dict(own.options)
        ),
        geometry=GeometryConfig(name=geometry),
        sampling=sampling,
        loss=LossConfig(
            name="softmax",
            user_weight_exponent=setting.user_weight_exponent,
            options={"temperature": temperature},
        ),
        optimizer=OptimizerConfig(learning_rate=setting.rate, schedule="cosine"),
        training=TrainingConfig(
            epochs=setting.epochs,
            batch_of="users",
            batch_size=setting.users,
            selection_metric=setting.metric,
            refit=True,
        ),
        evaluation=EvaluationConfig(cutoffs=(int(setting.metric.partition("@")[2]),)),
    )


CONFIGS = {f"{data}/{model}": _config(data, model) for data in _DATA for model in _MODELS}


def get_config(name: str) -> ConfigDict:
    return as_config_dict(CONFIGS[name])

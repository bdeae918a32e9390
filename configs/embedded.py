"""Models on the embedded data set, which is made up: 1,200 users, 800 items.

    hlr-jax train --config=embedded/hlr --workdir=runs/hlr

Hyperparameters chosen on validation NDCG@10 for CML, LRML, HLR and HLR++; the others take those of
CML or HLR. NDCG@10 on test (seed 2021; most popular items .130), and triplets a second on 2 CPU
cores (AMD EPYC):

    cml .188 (2.6M), lrml .185 (1.6M), hlr .186 (220k), hlrpp .189 (140k), adacml .192 (780k, cores
    shared with other work), transcf .186, dpcml .191, history_mean .186 (1.7M), items_only .190,
    nearest_items .193, recent_items .138 (the data have no order), rotation .151, multi_head .190,
    cpe .135 (500k), sfcml .188 (2,765M, because it computes each distance once)

The data show that things work, not which model is better.
"""

import dataclasses
from typing import Any

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

_DATA = DataConfig(name="embedded")
_ADAM = OptimizerConfig(learning_rate=0.01)
_MEMORY = {"slots": 10, "clip_memory": 0.3}


def _hinge(
    model: str, epochs: int = 30, history_length: int = 50, options: dict[str, Any] | None = None
) -> Config:
    """The hinge of the papers, on 4 negatives."""
    return Config(
        data=_DATA,
        model=ModelConfig(name=model, dim=32, options=options or {}),
        sampling=SamplingConfig(history_length=history_length, options={"num_negatives": 4}),
        loss=LossConfig(options={"margin": 1.0}),
        optimizer=_ADAM,
        training=TrainingConfig(epochs=epochs),
    )


def _in_order(config: Config) -> Config:
    """The same, of the last items before each positive."""
    data = dataclasses.replace(config.data, keep_times=True)
    sampling = dataclasses.replace(config.sampling, history="recent")
    return dataclasses.replace(config, data=data, sampling=sampling)


# CPE (Bao et al., MM 2019): every gap should equal the margin, and the covariance the identity. The
# weight of the covariance was chosen on validation NDCG@10 among 0, .1, 1, 10.
_CPE = Config(
    data=_DATA,
    model=ModelConfig(name="cml", dim=32),
    sampling=SamplingConfig(options={"num_negatives": 5}),
    loss=LossConfig(name="cpe", covariance=0.1, covariance_form="log_det", options={"margin": 0.5}),
    optimizer=_ADAM,
    training=TrainingConfig(epochs=30, selection_metric="ndcg@10"),
)
# SFCML (Bao et al., TPAMI 2022): a squared loss over all items, on the sphere. Learning rate and
# epochs chosen on validation NDCG@10.
_SFCML = Config(
    data=_DATA,
    model=ModelConfig(name="cml", dim=32),
    geometry=GeometryConfig(name="sphere"),
    sampling=SamplingConfig(negatives="full_catalog"),
    loss=LossConfig(name="sfcml", user_weight_exponent=1.0, options={"margin": 1.0}),
    optimizer=_ADAM,
    training=TrainingConfig(
        epochs=100, batch_of="users", batch_size=32, selection_metric="ndcg@10"
    ),
)

CONFIGS = {
    "cml": _hinge("cml"),
    "lrml": _hinge("lrml", options=_MEMORY),
    "hlr": _hinge("hlr", epochs=20, history_length=10, options=_MEMORY),
    "hlrpp": _hinge("hlrpp", epochs=20, history_length=10, options=_MEMORY),
    "adacml": _hinge("adacml", epochs=20, history_length=10),
    "transcf": _hinge("transcf"),
    "dpcml": _hinge("dpcml"),
    "history_mean": _hinge("history_mean", history_length=20),
    "items_only": _hinge("items_only", history_length=20),
    "nearest_items": _hinge("nearest_items", history_length=20),
    "recent_items": _in_order(_hinge("recent_items", history_length=10)),
    "rotation": _hinge("rotation"),
    "multi_head": _hinge("multi_head", options=_MEMORY | {"heads": 4}),
    "cpe": _CPE,
    "sfcml": _SFCML,
}


def get_config(name: str) -> ConfigDict:
    return as_config_dict(CONFIGS[name])

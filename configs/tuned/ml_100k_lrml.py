"""LRML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables. Hyperparameters chosen on validation NDCG@10.
ml_100k_lrml_from_cml.py is better.

    hlr-jax train --config=tuned/ml_100k/lrml --workdir=runs/ml_100k_lrml

Score, with --config.data.predefined=ml-100k-hlr (seeds 2021, 2022, 2023; 872 test users):
    NDCG@10 .303 +- .005, precision@10 .230, recall@10 .233.
Cost: 57 to 65 epochs at 401k triplets/s on 2 CPU cores (AMD EPYC).
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="lrml", options={"clip_memory": 0.3}),
            sampling=SamplingConfig(options={"num_negatives": 4}),
            loss=LossConfig(options={"margin": 1.0}),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

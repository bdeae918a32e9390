"""LRML on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables. Hyperparameters are those that validation NDCG@10 chose for CML and LRML
with a hinge. ml_1m_lrml_from_cml.py is better.

    hlr-jax train --config=tuned/ml_1m/lrml --workdir=runs/ml_1m_lrml

Score, with --config.data.predefined=ml-1m-hlr (seeds 2021, 2022, 2023; 6,031 test users):
    NDCG@10 .360 +- .002, precision@10 .323, recall@10 .139.
Cost: 15 to 17 epochs at 730k to 790k triplets/s on 2 CPU cores (AMD EPYC).
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_1m"),
            model=ModelConfig(name="lrml", options={"clip_memory": 0.3}),
            sampling=SamplingConfig(options={"num_negatives": 4}),
            loss=LossConfig(options={"margin": 0.5}),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(patience=5),
        )
    )

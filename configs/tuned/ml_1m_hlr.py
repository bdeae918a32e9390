"""HLR on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables. Hyperparameters are those that validation NDCG@10 chose for CML and LRML
with a hinge. ml_1m_hlr_from_cml.py is better.

    python launch/train.py --config=configs/tuned/ml_1m_hlr.py --workdir=runs/ml_1m_hlr

Score, with --config.data.predefined=ml-1m-hlr (seeds 2021, 2022, 2023; 6,031 test users):
    NDCG@10 .348 +- .002, precision@10 .314, recall@10 .133.
Cost: 15 epochs at 63k triplets/s on 2 CPU cores (AMD EPYC).
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_1m"),
            model=ModelConfig(name="hlr", options={"clip_memory": 0.3}),
            loss=LossConfig(options={"margin": 0.5}),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(epochs=15, patience=3),
        )
    )

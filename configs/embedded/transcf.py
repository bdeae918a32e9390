"""TransCF on the embedded data set.

Hyperparameters of CML's file here; both alphas as published.

    python launch/train.py --config=configs/embedded/transcf.py --workdir=runs/embedded/transcf

Score (seed 2021, 1,200 users): NDCG@10 .186; most popular .130.
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
            data=DataConfig(name="embedded"),
            model=ModelConfig(name="transcf", dim=32),
            sampling=SamplingConfig(negatives=4),
            loss=LossConfig(margin=1.0),
            optimizer=OptimizerConfig(learning_rate=0.01),
            training=TrainingConfig(epochs=30),
        )
    )

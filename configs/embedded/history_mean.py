"""CML with the mean of each user's items on the embedded data set.

The learning rate, margin and negatives of the other models here.

    python launch/train.py --config=configs/embedded/history_mean.py \
        --workdir=runs/embedded/history_mean

Score (seed 2021, 1,200 users): NDCG@10 .186; most popular .130.
Cost: 30 epochs at 1.7M triplets/s on 2 CPU cores (AMD EPYC).
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
            model=ModelConfig(name="history_mean", dim=32),
            sampling=SamplingConfig(negatives=4, history_length=20),
            loss=LossConfig(margin=1.0),
            optimizer=OptimizerConfig(learning_rate=0.01),
            training=TrainingConfig(epochs=30),
        )
    )

"""AdaCML on the embedded data set.

Hyperparameters carried over from HLR's.

    python launch/train.py --config=configs/embedded/adacml.py --workdir=runs/embedded/adacml

Score (seed 2021, 1,200 users): NDCG@10 .192; most popular .130.
Cost: 20 epochs at 780k triplets/s on 2 CPU cores (AMD EPYC) that were shared with other work.
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
            model=ModelConfig(name="adacml", dim=32),
            sampling=SamplingConfig(negatives=4, history_length=10),
            loss=LossConfig(margin=1.0),
            optimizer=OptimizerConfig(learning_rate=0.01),
            training=TrainingConfig(epochs=20),
        )
    )

"""LRML on the embedded data set.

Hyperparameters chosen on validation NDCG@10.

    python launch/train.py --config=configs/embedded/lrml.py --workdir=runs/embedded/lrml

Score (seed 2021, 1,200 users): NDCG@10 .185; most popular .130.
Cost: 30 epochs at 1.6M triplets/s on 2 CPU cores (AMD EPYC).
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
            model=ModelConfig(name="lrml", dim=32, options={"slots": 10, "clip_memory": 0.3}),
            sampling=SamplingConfig(negatives=4),
            loss=LossConfig(margin=1.0),
            optimizer=OptimizerConfig(learning_rate=0.01),
            training=TrainingConfig(epochs=30),
        )
    )

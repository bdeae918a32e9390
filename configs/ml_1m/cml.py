"""CML on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Hyperparameters chosen on validation NDCG@10.

    python launch/train.py --config=configs/ml_1m/cml.py --workdir=runs/ml_1m/cml

Score, with --config.data.predefined=ml-1m-hlr (seeds 2021, 2022, 2023; 6,031 test users):
    NDCG@10 .382 +- .003, precision@10 .342, recall@10 .150.
Cost: 25 to 29 epochs at 1.6M to 2.4M triplets/s on 2 CPU cores (AMD EPYC).
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
            model=ModelConfig(name="cml"),
            sampling=SamplingConfig(negatives=4),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.00075),
            training=TrainingConfig(patience=5),
        )
    )

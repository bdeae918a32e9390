"""CML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Softmax over the whole catalogue. Hyperparameters chosen on validation NDCG@10.
After the best epoch is known, trained anew on training and validation together.

    python launch/train.py --config=configs/ml_100k/cml.py --workdir=runs/ml_100k/cml

Score, with --config.data.predefined=ml-100k-hlr (seeds 2021, 2022, 2023; 872 test users):
    NDCG@10 .327 +- .005, precision@10 .242, recall@10 .251.
Cost: 44 to 80 epochs in 26 to 42 s, and 34 to 78 again, on a busy machine of 2 cores (AMD EPYC).
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
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="cml"),
            sampling=SamplingConfig(pool="catalogue"),
            loss=LossConfig(name="softmax", temperature=0.4, balance=0.3),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(epochs=80, select="ndcg@10", refit=True),
        )
    )

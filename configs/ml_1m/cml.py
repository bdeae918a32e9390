"""CML on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Softmax over the whole catalogue. Hyperparameters chosen on validation NDCG@10.
After the best epoch is known, trained anew on training and validation together.

    python launch/train.py --config=configs/ml_1m/cml.py --workdir=runs/ml_1m/cml

Score, with --config.data.predefined=ml-1m-hlr (seed 2021; 6,031 test users):
    NDCG@10 .434, precision@10 .382, recall@10 .179.
Cost: 12 epochs in 9.4 min, and 11 again in 7.3, on a busy machine of 2 cores (AMD EPYC).
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
            model=ModelConfig(name="cml", dim=200),
            sampling=SamplingConfig(pool="catalogue"),
            loss=LossConfig(name="softmax", temperature=0.35, balance=0.3),
            optimizer=OptimizerConfig(learning_rate=0.002, schedule="cosine"),
            training=TrainingConfig(epochs=12, batch_size=2000, select="ndcg@10", refit=True),
        )
    )

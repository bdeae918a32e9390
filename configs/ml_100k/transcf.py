"""TransCF on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Hyperparameters of the HLR authors' runs: both alphas, margin and learning rate as published.

    python launch/train.py --config=configs/ml_100k/transcf.py --workdir=runs/ml_100k/transcf

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .245, precision@10 .196, recall@10 .193; the authors' TensorFlow code .238, .193, .189.
Cost: 88 epochs at 197k triplets/s (4.5 ms a step) on 2 CPU cores (AMD EPYC) that had other work
too; CML, as busy, 680k (1.2 ms). What it takes longer are mostly the means of all neighbours.
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="transcf", options={"alpha_nbr": 0.1, "alpha_dist": 0.1}),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

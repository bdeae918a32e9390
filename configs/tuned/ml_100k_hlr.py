"""HLR on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables. Hyperparameters are those that validation NDCG@10 chose for CML and LRML
with a hinge. ml_100k_hlr_from_cml.py is better.

    hlr-jax train --config=tuned/ml_100k/hlr --workdir=runs/ml_100k_hlr

Score, with --config.data.predefined=ml-100k-hlr (seeds 2021, 2022, 2023; 872 test users):
    NDCG@10 .296 +- .001, precision@10 .225, recall@10 .230.
Cost: 65 to 77 epochs at 76k triplets/s on 2 CPU cores (AMD EPYC).
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
            model=ModelConfig(name="hlr", options={"clip_memory": 0.3}),
            loss=LossConfig(options={"margin": 1.0}),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

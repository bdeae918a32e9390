"""HLR++ on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables. Hyperparameters are those that validation NDCG@10 chose for CML and LRML
with a hinge. ml_100k_hlrpp_from_cml.py is better.

    hlr-jax train --config=tuned/ml_100k/hlrpp --workdir=runs/ml_100k_hlrpp

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .293, precision@10 .222, recall@10 .227.
Cost: 73 epochs at 10k triplets/s on 2 CPU cores (AMD EPYC).
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
            model=ModelConfig(name="hlrpp", options={"clip_memory": 0.3}),
            loss=LossConfig(options={"margin": 1.0}),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

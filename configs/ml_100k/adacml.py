"""AdaCML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Hyperparameters with which the HLR authors' code (Tran et al., RecSys 2021) was run on
ml-100k-hlr.

    python launch/train.py --config=configs/ml_100k/adacml.py --workdir=runs/ml_100k/adacml

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .267, precision@10 .200, recall@10 .200 (authors' code: .264, .201, .203).
Cost: 44 epochs at 76k triplets/s on 2 CPU cores (AMD EPYC) that were shared with other work.
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
            model=ModelConfig(name="adacml"),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

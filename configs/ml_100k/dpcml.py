"""DPCML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

Negatives and margin of CML's file here, not tuned; diversity as by default.

    python launch/train.py --config=configs/ml_100k/dpcml.py --workdir=runs/ml_100k/dpcml

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .299, precision@10 .228, recall@10 .236.
Cost: 82 epochs at 558k triplets/s on 2 CPU cores (AMD EPYC) that had other work too.
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="dpcml"),
            sampling=SamplingConfig(negatives=4),
            loss=LossConfig(margin=1.0),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

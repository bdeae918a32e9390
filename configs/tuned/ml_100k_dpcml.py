"""DPCML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

A hinge on 4 negatives with a margin of 1, as for CML on the embedded data; not tuned. The weight of
the diversity is the default.

    hlr-jax train --config=tuned/ml_100k/dpcml --workdir=runs/ml_100k_dpcml

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .299, precision@10 .228, recall@10 .236.
Cost: 82 epochs at 558k triplets/s on 2 CPU cores (AMD EPYC) that were shared with other work.
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
            sampling=SamplingConfig(options={"num_negatives": 4}),
            loss=LossConfig(options={"margin": 1.0}),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

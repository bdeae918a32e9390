"""AdaCML on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Hyperparameters with which the HLR authors' code (Tran et al., RecSys 2021) was run on
ml-100k-hlr.

    python launch/train.py --config=configs/ml_1m/adacml.py --workdir=runs/ml_1m/adacml

Cost and score: not yet run.
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
            data=DataConfig(name="ml_1m"),
            model=ModelConfig(name="adacml"),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.001),
        )
    )

"""AdaCML on Yelp (stars >= 4, 5-core, random 72/8/20).

Hyperparameters of the HLR authors' configuration (Tran et al., RecSys 2021).

    python launch/train.py --config=configs/yelp/adacml.py --workdir=runs/yelp/adacml

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
            data=DataConfig(name="yelp"),
            model=ModelConfig(name="adacml"),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.0005),
        )
    )

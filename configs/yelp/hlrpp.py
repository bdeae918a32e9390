"""HLR++ on Yelp (stars >= 4, 5-core, random 72/8/20).

Hyperparameters of the HLR authors' configuration (Tran et al., RecSys 2021).

    python launch/train.py --config=configs/yelp/hlrpp.py --workdir=runs/yelp/hlrpp

Cost and score: not yet run.
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
            data=DataConfig(name="yelp"),
            model=ModelConfig(name="hlrpp", options={"clip_memory": 1.0, "clip_key": 1.0}),
            sampling=SamplingConfig(history_length=5, history="unpopular"),
            loss=LossConfig(margin=0.75, copy_relation=True),
            optimizer=OptimizerConfig(learning_rate=0.0005),
        )
    )

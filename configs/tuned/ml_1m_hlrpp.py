"""HLR++ on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Trained from random tables, with the hyperparameters of ml_1m_hlr.py.

    python launch/train.py --config=configs/tuned/ml_1m_hlrpp.py --workdir=runs/ml_1m_hlrpp

Cost and score: not measured.
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_1m"),
            model=ModelConfig(name="hlrpp", options={"clip_memory": 0.3}),
            loss=LossConfig(options={"margin": 0.5}),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(epochs=15, patience=3),
        )
    )

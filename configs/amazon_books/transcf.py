r"""TransCF on Amazon Books (ratings >= 4, 10-core, random 72/8/20).

Hyperparameters of the HLR authors' configuration (Tran et al., RecSys 2021).

    python launch/train.py --config=configs/amazon_books/transcf.py \
        --workdir=runs/amazon_books/transcf

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
            data=DataConfig(name="amazon_books"),
            model=ModelConfig(name="transcf", options={"alpha_nbr": 0.1, "alpha_dist": 0.1}),
            loss=LossConfig(margin=0.5),
            optimizer=OptimizerConfig(learning_rate=0.0005),
        )
    )

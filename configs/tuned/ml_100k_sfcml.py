"""CML with the objective of SFCML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

The squared loss of SFCML (Bao et al., TPAMI 2022) over all items, on the sphere; a step takes 32
users with all of their interactions. Not tuned.

    python launch/train.py --config=configs/tuned/ml_100k_sfcml.py --workdir=runs/ml_100k_sfcml

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users): not measured again. An
earlier version, which projected rows onto the sphere after each step instead of normalizing them,
had NDCG@10 .249, and .252 with 1,000 interactions a step.
Cost: not measured.
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    as_config_dict,
)


def get_config() -> ConfigDict:
    return as_config_dict(
        Config(
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="cml"),
            geometry=GeometryConfig(name="sphere"),
            sampling=SamplingConfig(negatives="full_catalog"),
            loss=LossConfig(name="sfcml", user_weight_exponent=1.0, options={"margin": 1.0}),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(
                epochs=80, batch_of="users", batch_size=32, selection_metric="ndcg@10"
            ),
        )
    )

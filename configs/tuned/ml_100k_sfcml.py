"""CML with the objective of SFCML on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

The squared loss of SFCML (Bao et al., TPAMI 2022) over all items, on the sphere; a step takes 32
users with all of their interactions. Not tuned. (The paper projects rows onto the sphere after each
step; here they are normalized, and the gradient goes through the norm.)

    hlr-jax train --config=tuned/ml_100k/sfcml --workdir=runs/ml_100k_sfcml

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .282, precision@10 .215, recall@10 .212; with 1,000 interactions a step
    (--config.training.batch_of=interactions --config.training.batch_size=1000) .284, .217, .218.
Cost: 80 epochs in 1.8 s, with interactions 17 s, on a busy machine of 2 cores (AMD EPYC).
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

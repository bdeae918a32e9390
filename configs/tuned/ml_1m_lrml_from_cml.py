"""LRML on MovieLens 1M, from the tables of tuned CML.

The softmax over all items and a memory that is kept short, so that CML's ranking changes little. A
step takes 32 users with all of their interactions. First train ml_1m_cml.py on the same data, into
the folder that --config.training.pretrained names.

    hlr-jax train --config=tuned/ml_1m/lrml_from_cml \
        --workdir=runs/ml_1m_lrml_from_cml \
        --config.data.predefined=ml-1m-hlr --config.training.pretrained=runs/ml_1m_cml

Score (every rating counts there; seeds 2021, 2022, 2023; 6,031 test users):
    NDCG@10 .441 +- .002, precision@10 .388, recall@10 .183.
Cost beside that of CML: 5 to 6 epochs in 134 to 309 s, and 2 to 3 again, on a busy machine of 2
cores (AMD EPYC).
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
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
            data=DataConfig(name="ml_1m"),
            model=ModelConfig(name="lrml", dim=800, options={"clip_memory": 0.1}),
            sampling=SamplingConfig(negatives="full_catalog"),
            loss=LossConfig(
                name="softmax", user_weight_exponent=0.3, options={"temperature": 0.28}
            ),
            optimizer=OptimizerConfig(learning_rate=0.0005),
            training=TrainingConfig(
                epochs=10,
                batch_of="users",
                batch_size=32,
                patience=3,
                selection_metric="ndcg@10",
                refit=True,
            ),
        )
    )

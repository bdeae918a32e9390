"""LRML on MovieLens 100k (ratings >= 4, 10-core), from the tables of tuned CML.

The softmax and a memory that is kept short, so that CML's ranking changes little. 100 negatives
shared by a batch. First train ml_100k_cml.py on the same data, into the folder that
--config.training.pretrained names.

    hlr-jax train --config=tuned/ml_100k/lrml_from_cml \
        --workdir=runs/ml_100k_lrml_from_cml \
        --config.data.predefined=ml-100k-hlr --config.training.pretrained=runs/ml_100k_cml

Score (seeds 2021, 2022, 2023; 872 test users):
    NDCG@10 .326 +- .004, precision@10 .241, recall@10 .249.
Cost beside that of CML: 6 to 10 epochs in 16 to 26 s, and 2 to 8 again, on a busy machine of 2
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
            data=DataConfig(name="ml_100k"),
            model=ModelConfig(name="lrml", options={"clip_memory": 0.1}),
            sampling=SamplingConfig(negatives="shared", options={"num_negatives": 100}),
            loss=LossConfig(name="softmax", user_weight_exponent=0.3, options={"temperature": 0.4}),
            optimizer=OptimizerConfig(learning_rate=0.0005),
            training=TrainingConfig(epochs=10, patience=4, selection_metric="ndcg@10", refit=True),
        )
    )

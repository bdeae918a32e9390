"""HLR on MovieLens 100k (ratings >= 4, 10-core), from the tables of tuned CML.

The softmax and a memory that is kept short, so that CML's ranking changes little. Each positive has
10 negatives of its own. First train ml_100k_cml.py on the same data, into the folder that
--config.training.pretrained names.

    hlr-jax train --config=tuned/ml_100k/hlr_from_cml \
        --workdir=runs/ml_100k_hlr_from_cml \
        --config.data.predefined=ml-100k-hlr --config.training.pretrained=runs/ml_100k_cml

Score (seeds 2021, 2022, 2023; 872 test users):
    NDCG@10 .327 +- .003, precision@10 .242, recall@10 .251.
Cost beside that of CML: 5 to 10 epochs in 41 to 84 s, and 1 to 7 again, on a busy machine of 2
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
            model=ModelConfig(name="hlr", options={"clip_memory": 0.1}),
            sampling=SamplingConfig(history_length=20, options={"num_negatives": 10}),
            loss=LossConfig(name="softmax", user_weight_exponent=0.3, options={"temperature": 0.4}),
            optimizer=OptimizerConfig(learning_rate=0.0005),
            training=TrainingConfig(epochs=10, patience=4, selection_metric="ndcg@10", refit=True),
        )
    )

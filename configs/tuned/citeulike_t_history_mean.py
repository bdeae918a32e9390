"""CML with the mean of each user's items on CiteULike-t (5-core, random 72/8/20).

Softmax over all items, and a learning rate that falls to 0. Hyperparameters chosen on validation
NDCG@10. Steps read 20 items of a user, ranking up to 100. After the best epoch is known, the model
is trained again on training and validation together.

    hlr-jax train --config=tuned/citeulike_t/history_mean \
        --workdir=runs/citeulike_t_history_mean

Score, with --config.data.predefined=citeulike-t-hlr (seeds 2021, 2022, 2023; 3,078 test users):
    NDCG@10 .174 +- .002, precision@10 .078, recall@10 .213.
Cost: 28 to 30 epochs in 182 to 505 s, and 18 to 27 again, on a busy machine of 2 cores (AMD EPYC).
"""

from ml_collections import ConfigDict

from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
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
            data=DataConfig(name="citeulike_t"),
            model=ModelConfig(name="history_mean", dim=128),
            sampling=SamplingConfig(negatives="full_catalog", history_length=20),
            loss=LossConfig(name="softmax", user_weight_exponent=0.3, options={"temperature": 0.2}),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(epochs=30, selection_metric="ndcg@10", refit=True),
            evaluation=EvaluationConfig(history_length=100),
        )
    )

"""Users without rows of their own on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

A user is the weighted mean of its items, so that one is recommended to that was not trained on. The
user-batched full softmax, and a learning rate that falls to 0. Hyperparameters chosen on validation
NDCG@10. After the best epoch is known, the model is trained again on training and validation
together.

    hlr-jax train --config=tuned/ml_100k/items_only \
        --workdir=runs/ml_100k_items_only

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .327, precision@10 .242, recall@10 .253.
Cost: 28 epochs in 3 to 11 s, and 18 again, on a busy machine of 2 cores (AMD EPYC).
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
            model=ModelConfig(name="items_only", dim=200),
            sampling=SamplingConfig(negatives="full_catalog", history_length=50),
            loss=LossConfig(
                name="softmax", user_weight_exponent=0.3, options={"temperature": 0.25}
            ),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(
                epochs=30,
                batch_of="users",
                batch_size=32,
                selection_metric="ndcg@10",
                refit=True,
            ),
        )
    )

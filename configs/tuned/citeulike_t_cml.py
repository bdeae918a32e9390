"""CML on CiteULike-t (5-core, random 72/8/20).

Softmax over all items, and a learning rate that falls to 0. Hyperparameters chosen on validation
NDCG@10. After the best epoch is known, the model is trained again on training and validation
together.

    hlr-jax train --config=tuned/citeulike_t/cml --workdir=runs/citeulike_t_cml

Score, with --config.data.predefined=citeulike-t-hlr (seeds 2021, 2022, 2023; 3,078 test users):
    NDCG@10 .173 +- .002, precision@10 .077, recall@10 .210.
Cost: 28 to 30 epochs in 183 to 255 s, and 18 to 20 again, on a busy machine of 2 cores (AMD EPYC).
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
            data=DataConfig(name="citeulike_t"),
            model=ModelConfig(name="cml", dim=128),
            sampling=SamplingConfig(negatives="full_catalog"),
            loss=LossConfig(name="softmax", user_weight_exponent=0.3, options={"temperature": 0.2}),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(epochs=30, selection_metric="ndcg@10", refit=True),
        )
    )

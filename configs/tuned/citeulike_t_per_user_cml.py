"""CML on CiteULike-t (users with at least 5 items, 3:1:1 of each user's items, as in CML's code).

The hyperparameters of citeulike_t_cml.py; the epoch is selected by validation recall@50. After the
best epoch is known, the model is trained again on training and validation together.

    python launch/train.py --config=configs/tuned/citeulike_t_per_user_cml.py \
        --workdir=runs/citeulike_t_per_user_cml

Score (seed 2021; 5,219 test users):
    Recall@50 .338, recall@100 .410.
Cost: 29 epochs in 21 min, and 19 again, on a busy machine of 2 cores (AMD EPYC).
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
            data=DataConfig(
                name="citeulike_t",
                core=5,
                item_core=0,
                split="per_user",
                valid_fraction=0.2,
                test_fraction=0.2,
            ),
            model=ModelConfig(name="cml", dim=128),
            sampling=SamplingConfig(negatives="full_catalog"),
            loss=LossConfig(name="softmax", user_weight_exponent=0.3, options={"temperature": 0.2}),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(epochs=30, selection_metric="recall@50", refit=True),
            evaluation=EvaluationConfig(cutoffs=(50, 100)),
        )
    )

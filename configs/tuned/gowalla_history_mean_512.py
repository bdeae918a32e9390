"""CML with the mean of each user's items and 512 dimensions on Gowalla.

As gowalla_history_mean.py, with twice the dimensions.

    python launch/train.py --config=configs/tuned/gowalla_history_mean_512.py \
        --workdir=runs/gowalla_history_mean_512

Cost and score: not measured. On 2 cores expect twice the 17 min of gowalla_history_mean.py.
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
            data=DataConfig(name="gowalla"),
            model=ModelConfig(name="history_mean", dim=512),
            sampling=SamplingConfig(
                negatives="shared", history_length=20, options={"num_negatives": 1024}
            ),
            loss=LossConfig(name="contrastive", options={"margin": 0.8, "negative_weight": 200.0}),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(
                epochs=20, batch_size=4096, selection_metric="ndcg@20", refit=True
            ),
            evaluation=EvaluationConfig(cutoffs=(20,), history_length=100),
        )
    )

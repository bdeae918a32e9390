"""CML with 256 dimensions on Gowalla (LightGCN's split; a tenth of its training part validates).

As gowalla_cml.py, with twice the dimensions and a smaller weight of the negatives. Hyperparameters
chosen on validation NDCG@20. After the best epoch is known, the model is trained again on training
and validation together.

    python launch/train.py --config=configs/tuned/gowalla_cml_256.py --workdir=runs/gowalla_cml_256

Score (seed 2021; all 29,858 test users):
    Recall@20 .178, NDCG@20 .142.
Cost: 20 epochs in 6.8 min, and 20 again, on a busy machine of 2 cores (AMD EPYC).
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
            model=ModelConfig(name="cml", dim=256),
            sampling=SamplingConfig(negatives="shared", options={"num_negatives": 1024}),
            loss=LossConfig(name="contrastive", options={"margin": 0.8, "negative_weight": 80.0}),
            optimizer=OptimizerConfig(learning_rate=0.003, schedule="cosine"),
            training=TrainingConfig(
                epochs=20, batch_size=4096, selection_metric="ndcg@20", refit=True
            ),
            evaluation=EvaluationConfig(cutoffs=(20,)),
        )
    )

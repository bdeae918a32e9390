"""CML with the objective of CPE on MovieLens 100k (ratings >= 4, 10-core, random 72/8/20).

The loss and the penalty on the covariance of CPE (Bao et al., MM 2019) with 5 negatives of each
positive. Not tuned.

    hlr-jax train --config=tuned/ml_100k/cpe --workdir=runs/ml_100k_cpe

Score, with --config.data.predefined=ml-100k-hlr (seed 2021; 872 test users):
    NDCG@10 .146, precision@10 .119, recall@10 .098; without the penalty
    (--config.loss.covariance=0) .196, .152, .159.
Cost: 79 epochs in 26 s, without the penalty 73 in 3.4 s, on a busy machine of 2 cores (AMD EPYC).
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
            model=ModelConfig(name="cml"),
            sampling=SamplingConfig(options={"num_negatives": 5}),
            loss=LossConfig(
                name="cpe", covariance=10.0, covariance_form="log_det", options={"margin": 0.5}
            ),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(epochs=80, selection_metric="ndcg@10"),
        )
    )

"""HLR on MovieLens 1M, from the tables of tuned CML.

Only the relation is trained, with a memory that is kept short: 4 negatives of each positive would
spoil tables that CML trained with all of them. First train ml_1m_cml.py on the same data, into the
folder that --config.training.pretrained names.

    hlr-jax train --config=tuned/ml_1m/hlr_from_cml \
        --workdir=runs/ml_1m_hlr_from_cml \
        --config.data.predefined=ml-1m-hlr --config.training.pretrained=runs/ml_1m_cml

Score (every rating counts there; seeds 2021, 2022, 2023; 6,031 test users):
    NDCG@10 .442 +- .001, precision@10 .389, recall@10 .184.
Cost beside that of CML: 2 epochs in 5 to 7 min, and 1 to 2 again, on a busy machine of 2 cores (AMD
EPYC).
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
            model=ModelConfig(name="hlr", dim=800, options={"clip_memory": 0.1}),
            sampling=SamplingConfig(history_length=10, options={"num_negatives": 4}),
            loss=LossConfig(
                name="softmax", user_weight_exponent=0.3, options={"temperature": 0.28}
            ),
            optimizer=OptimizerConfig(learning_rate=0.001),
            training=TrainingConfig(
                epochs=2,
                patience=3,
                selection_metric="ndcg@10",
                refit=True,
                freeze_user=True,
                freeze_item=True,
            ),
        )
    )

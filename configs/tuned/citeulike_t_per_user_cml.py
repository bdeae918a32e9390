"""CML on CiteULike-t (users with at least 5 items, 3:1:1 of each user's items, as in CML's code).

The hyperparameters of citeulike_t_cml.py; the epoch is selected by validation recall@50. After the
best epoch is known, the model is trained again on training and validation together.

    hlr-jax train --config=tuned/citeulike_t_per_user/cml \
        --workdir=runs/citeulike_t_per_user_cml

Score (seed 2021; 5,219 test users):
    Recall@50 .338, recall@100 .410.
Cost: 29 epochs in 21 min, and 19 again, on a busy machine of 2 cores (AMD EPYC).
"""

import pathlib

from ml_collections import ConfigDict

from hlr_jax.config import files


def get_config() -> ConfigDict:
    config = files.read(str(pathlib.Path(__file__).with_name("citeulike_t_cml.py")))
    config.data.core = 5
    config.data.item_core = 0
    config.data.split = "per_user"
    config.data.valid_fraction = 0.2
    config.data.test_fraction = 0.2
    config.training.selection_metric = "recall@50"
    config.evaluation.cutoffs = (50, 100)
    return config

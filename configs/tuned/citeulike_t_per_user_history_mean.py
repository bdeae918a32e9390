"""CML with the mean of each user's items on CiteULike-t (3:1:1 of each user's items).

Users with at least 5 items, as in CML's code. The hyperparameters of citeulike_t_history_mean.py;
the epoch is selected by validation recall@50. After the best epoch is known, the model is trained
again on training and validation together.

    hlr-jax train --config=tuned/citeulike_t_per_user/history_mean \
        --workdir=runs/citeulike_t_per_user_history_mean

Cost and score: not measured. On 2 cores expect somewhat more than the 21 min of
citeulike_t_per_user_cml.py.
"""

import pathlib

from ml_collections import ConfigDict

from hlr_jax.config import files


def get_config() -> ConfigDict:
    config = files.read(str(pathlib.Path(__file__).with_name("citeulike_t_per_user_cml.py")))
    config.model.name = "history_mean"
    config.sampling.history_length = 20
    config.evaluation.history_length = 100
    return config

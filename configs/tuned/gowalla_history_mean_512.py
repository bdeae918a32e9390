"""CML with the mean of each user's items and 512 dimensions on Gowalla.

As gowalla_history_mean.py, with twice the dimensions.

    hlr-jax train --config=tuned/gowalla/history_mean_512 \
        --workdir=runs/gowalla_history_mean_512

Cost and score: not measured. On 2 cores expect twice the 17 min of gowalla_history_mean.py.
"""

import pathlib

from ml_collections import ConfigDict

from hlr_jax.config import files


def get_config() -> ConfigDict:
    config = files.read(str(pathlib.Path(__file__).with_name("gowalla_history_mean.py")))
    config.model.dim = 512
    return config

"""HLR++ on MovieLens 1M (ratings >= 4, 10-core, random 72/8/20).

Softmax over all items, from random tables, with the hyperparameters of ml_1m_hlr.py.

    hlr-jax train --config=tuned/ml_1m/hlrpp --workdir=runs/ml_1m_hlrpp

Cost and score: not measured.
"""

import pathlib

from ml_collections import ConfigDict

from hlr_jax.config import files


def get_config() -> ConfigDict:
    config = files.read(str(pathlib.Path(__file__).with_name("ml_1m_hlr.py")))
    config.model.name = "hlrpp"
    return config

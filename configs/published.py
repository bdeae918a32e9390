"""Hyperparameters as published, by data set and model.

    hlr-jax train --config=published/ml_20m/hlr --workdir=runs/ml_20m_hlr

Those of MovieLens 20M, Echo Nest, Yelp and Amazon Books are the HLR authors' (Tran et al., RecSys
2021). For the others they published no hyperparameters: MovieLens 100k and 1M, CiteULike-t, the
data sets of NCF have settings that the authors used elsewhere. `gowalla/cml` and
`citeulike_t_per_user/cml` follow CML's own code instead: its rank weights, margin and batch size.

What is not given here is the library's default, and that of the HLR authors' code: a hinge on one
negative of each positive, 100 dimensions, batches of 1,000 interactions, 100 epochs.
docs/results.md has the scores. Not run: MovieLens 20M, Echo Nest, Yelp and Amazon Books.
"""

from collections.abc import Mapping
from types import MappingProxyType

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

_ALPHAS = {"alpha_nbr": 0.1, "alpha_dist": 0.1}
_CLIPPED = {"clip_memory": 1.0, "clip_key": 1.0}


def _config(
    data: str,
    model: str,
    learning_rate: float,
    margin: float,
    *,
    options: Mapping[str, float] = MappingProxyType({}),
    copy_relation: bool = False,
    unpopular: int = 0,
) -> Config:
    """Return a configuration of the HLR authors.

    Args:
      unpopular: relations read this many items of a history, mostly unpopular ones; 0 for the
        default.
    """
    sampling = SamplingConfig()
    if unpopular:
        sampling = SamplingConfig(history_length=unpopular, history="unpopular")
    return Config(
        data=DataConfig(name=data),
        model=ModelConfig(name=model, options=dict(options)),
        sampling=sampling,
        loss=LossConfig(copy_relation=copy_relation, options={"margin": margin}),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
    )


_OF_HLR = (
    _config("ml_20m", "cml", 7.5e-4, 0.5),
    _config("ml_20m", "lrml", 2e-4, 0.2),
    _config("ml_20m", "hlr", 2e-4, 0.2),
    _config("ml_20m", "hlrpp", 2e-4, 0.2),
    _config("ml_20m", "adacml", 2e-4, 0.2),
    _config("ml_20m", "transcf", 5e-4, 0.5, options=_ALPHAS),
    _config("echonest", "cml", 7.5e-4, 0.5),
    _config("echonest", "lrml", 5e-4, 0.5),
    _config("echonest", "hlr", 5e-4, 0.5),
    _config("echonest", "hlrpp", 7.5e-4, 0.5),
    _config("echonest", "adacml", 5e-4, 0.5),
    _config("echonest", "transcf", 5e-4, 0.5, options=_ALPHAS),
    _config("yelp", "cml", 7.5e-4, 0.5),
    _config("yelp", "lrml", 7.5e-4, 0.5, options=_CLIPPED, copy_relation=True),
    _config("yelp", "hlr", 7.5e-4, 0.75, options=_CLIPPED, copy_relation=True, unpopular=5),
    _config("yelp", "hlrpp", 5e-4, 0.75, options=_CLIPPED, copy_relation=True, unpopular=5),
    _config("yelp", "adacml", 5e-4, 0.5),
    _config("yelp", "transcf", 5e-4, 0.5, options=_ALPHAS),
    _config("amazon_books", "cml", 5e-4, 0.5),
    _config("amazon_books", "lrml", 5e-4, 0.5, options=_CLIPPED),
    _config("amazon_books", "hlr", 5e-4, 0.5, options=_CLIPPED),
    _config(
        "amazon_books", "hlrpp", 7.5e-4, 0.5, options=_CLIPPED, copy_relation=True, unpopular=10
    ),
    _config("amazon_books", "adacml", 2e-4, 0.5),
    _config("amazon_books", "transcf", 5e-4, 0.5, options=_ALPHAS),
    _config("ml_100k", "cml", 7.5e-4, 0.5),
    _config("ml_100k", "lrml", 1e-3, 0.5),
    _config("ml_100k", "hlr", 1e-3, 0.2),
    _config("ml_100k", "hlrpp", 1e-3, 0.2),
    _config("ml_100k", "adacml", 1e-3, 0.5),
    _config("ml_100k", "transcf", 1e-3, 0.5, options=_ALPHAS),
    _config("ml_1m", "cml", 7.5e-4, 0.5),
    _config("ml_1m", "lrml", 1e-3, 0.2),
    _config("ml_1m", "hlr", 1e-3, 0.2),
    _config("ml_1m", "hlrpp", 1e-3, 0.2),
    _config("ml_1m", "adacml", 1e-3, 0.5),
    _config("ml_1m", "transcf", 1e-3, 0.5, options=_ALPHAS),
    _config("citeulike_t", "cml", 7.5e-4, 0.5),
    _config("citeulike_t", "lrml", 1e-3, 0.5),
    _config("citeulike_t", "hlr", 1e-3, 0.2),
    _config("citeulike_t", "hlrpp", 1e-3, 0.2),
    _config("ml_1m_rating3", "cml", 7.5e-4, 0.5),
    _config("ml_latest_small", "cml", 7.5e-4, 0.5),
    _config("amazon_hin", "cml", 7.5e-4, 0.5),
    _config("lastfm_2k", "cml", 7.5e-4, 0.5),
    _config("ncf_ml_1m", "cml", 7.5e-4, 0.5),
    _config("pinterest", "cml", 7.5e-4, 0.5),
)
CONFIGS = {f"{config.data.name}/{config.model.name}": config for config in _OF_HLR}

# CML with its rank weights.
_WARP = LossConfig(name="warp", options={"margin": 1.9})
CONFIGS["gowalla/cml"] = Config(
    data=DataConfig(name="gowalla"),
    model=ModelConfig(name="cml"),
    sampling=SamplingConfig(options={"num_negatives": 100}),
    loss=_WARP,
    optimizer=OptimizerConfig(learning_rate=1e-3),
    training=TrainingConfig(batch_size=50_000, selection_metric="ndcg@20"),
    evaluation=EvaluationConfig(cutoffs=(20,)),
)
# Users with at least 5 items, 3:1:1 of each user's items. An epoch has two steps: the authors' code
# trains until somebody stops it.
CONFIGS["citeulike_t_per_user/cml"] = Config(
    data=DataConfig(
        name="citeulike_t",
        core=5,
        item_core=0,
        split="per_user",
        valid_fraction=0.2,
        test_fraction=0.2,
    ),
    model=ModelConfig(name="cml"),
    sampling=SamplingConfig(options={"num_negatives": 20}),
    loss=_WARP,
    optimizer=OptimizerConfig(name="adagrad", learning_rate=0.1),
    training=TrainingConfig(
        epochs=1000, batch_size=50_000, patience=100, selection_metric="recall@50"
    ),
    evaluation=EvaluationConfig(cutoffs=(50, 100)),
)


def get_config(name: str) -> ConfigDict:
    return as_config_dict(CONFIGS[name])

"""Baselines to compare with: most popular items, EASE, and methods of `implicit` and `irspack`."""

from hlr_jax.baselines.methods import (
    BPR,
    IALS,
    METHODS,
    Ease,
    ItemKNN,
    Method,
    MostPopular,
    RP3Beta,
    ScaledIALS,
    Slim,
    parse,
)
from hlr_jax.baselines.recommender import BaselineRecommender, load
from hlr_jax.baselines.scoring import Scorer, evaluate, top_k
from hlr_jax.baselines.tuning import Tuning, tune, tune_and_evaluate

__all__ = [
    "BPR",
    "IALS",
    "METHODS",
    "BaselineRecommender",
    "Ease",
    "ItemKNN",
    "Method",
    "MostPopular",
    "RP3Beta",
    "ScaledIALS",
    "Scorer",
    "Slim",
    "Tuning",
    "evaluate",
    "load",
    "parse",
    "top_k",
    "tune",
    "tune_and_evaluate",
]

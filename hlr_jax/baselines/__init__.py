"""Recommenders to compare with: most popular items, EASE, and those of the library `implicit`."""

from hlr_jax.baselines.methods import (
    BPR,
    IALS,
    METHODS,
    Ease,
    ItemKNN,
    Method,
    MostPopular,
)
from hlr_jax.baselines.scoring import Scorer, evaluate, top_k
from hlr_jax.baselines.tuning import tune, tune_and_evaluate

__all__ = [
    "BPR",
    "IALS",
    "METHODS",
    "Ease",
    "ItemKNN",
    "Method",
    "MostPopular",
    "Scorer",
    "evaluate",
    "top_k",
    "tune",
    "tune_and_evaluate",
]

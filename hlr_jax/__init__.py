"""Metric-learning recommenders (CML, LRML, HLR, HLR++) in JAX and Flax.

import hlr_jax

config = hlr_jax.Config(data=hlr_jax.DataConfig(name="embedded"))
recommender = hlr_jax.train(config)
recommender.recommend(users=[7], k=10)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hlr_jax.baselines.recommender import BaselineRecommender, load
    from hlr_jax.comparison import Comparison, compare
    from hlr_jax.config import (
        Config,
        DataConfig,
        EvaluationConfig,
        GeometryConfig,
        LossConfig,
        ModelConfig,
        OptimizerConfig,
        SamplingConfig,
        ShardingConfig,
        TrainingConfig,
    )
    from hlr_jax.data import Dataset, Interactions
    from hlr_jax.errors import DivergedError, InputError
    from hlr_jax.functional.geometry import Geometry
    from hlr_jax.functional.losses import Loss, NegativeDistances
    from hlr_jax.models import Relation
    from hlr_jax.progress import set_progress
    from hlr_jax.registry import register
    from hlr_jax.runs.analysis import Analysis, analyse
    from hlr_jax.runs.diagnosis import Diagnosis, diagnose
    from hlr_jax.runs.experiment import train, train_and_evaluate
    from hlr_jax.runs.explanation import Explanation
    from hlr_jax.runs.recommender import Recommender
    from hlr_jax.runs.trackers import Callback
    from hlr_jax.sampling.samplers import Sampler
    from hlr_jax.types import History, PerExampleNegatives, SharedNegatives

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "BaselineRecommender",
    "Callback",
    "Comparison",
    "Config",
    "DataConfig",
    "Dataset",
    "Diagnosis",
    "DivergedError",
    "EvaluationConfig",
    "Explanation",
    "Geometry",
    "GeometryConfig",
    "History",
    "InputError",
    "Interactions",
    "Loss",
    "LossConfig",
    "ModelConfig",
    "NegativeDistances",
    "OptimizerConfig",
    "PerExampleNegatives",
    "Recommender",
    "Relation",
    "Sampler",
    "SamplingConfig",
    "ShardingConfig",
    "SharedNegatives",
    "TrainingConfig",
    "analyse",
    "compare",
    "diagnose",
    "load",
    "register",
    "set_progress",
    "train",
    "train_and_evaluate",
]

_HOMES = {
    "Analysis": "runs.analysis",
    "BaselineRecommender": "baselines.recommender",
    "Callback": "runs.trackers",
    "Comparison": "comparison",
    "Dataset": "data",
    "Diagnosis": "runs.diagnosis",
    "DivergedError": "errors",
    "Explanation": "runs.explanation",
    "Geometry": "functional.geometry",
    "History": "types",
    "InputError": "errors",
    "Interactions": "data",
    "Loss": "functional.losses",
    "NegativeDistances": "functional.losses",
    "PerExampleNegatives": "types",
    "Recommender": "runs.recommender",
    "Relation": "models",
    "Sampler": "sampling.samplers",
    "SharedNegatives": "types",
    "analyse": "runs.analysis",
    "compare": "comparison",
    "diagnose": "runs.diagnosis",
    "load": "baselines.recommender",
    "register": "registry",
    "set_progress": "progress",
    "train": "runs.experiment",
    "train_and_evaluate": "runs.experiment",
}

# Rooms that people use by name, as hlr_jax.config.load(..).
_ROOMS = ("baselines", "config", "serving", "testing")


def __getattr__(name: str) -> Any:
    # Looked up on first use: JAX takes its time to import, and a launcher's --help should not.
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'config')}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})

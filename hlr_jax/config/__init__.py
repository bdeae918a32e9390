"""Typed, validated configuration of a run.

A run is described by one frozen `Config`. Files such as those under `configs/` return it as an
`ml_collections.ConfigDict` (through `as_config_dict`), which absl turns into
`--config.section.field=value` flags; `from_config_dict` turns that back into a validated `Config`.
The options of relations, geometries, losses and samplers are the fields of their classes
(`hlr_jax.registry`), so a new class brings its own options and flags with it.
"""

from hlr_jax.config.dicts import (
    as_config_dict,
    as_dict,
    flat,
    from_config_dict,
    section_config_dict,
)
from hlr_jax.config.fields import (
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
from hlr_jax.config.files import load

__all__ = [
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "GeometryConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "ShardingConfig",
    "TrainingConfig",
    "as_config_dict",
    "as_dict",
    "flat",
    "from_config_dict",
    "load",
    "section_config_dict",
]

"""Typed, validated configuration of a run.

A run is described by one frozen `Config`. Files under `configs/` return it as an
`ml_collections.ConfigDict` (through `as_config_dict`), which absl turns into
`--config.section.field=value` flags; `from_config_dict` brings it back, validated.
The options of a model are the fields of its module (see `hlr_jax.models`), so a new
model brings its own options with it.
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
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "EvaluationConfig",
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
    "section_config_dict",
]

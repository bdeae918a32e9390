"""The configuration of a run: its sections, each in the file that lists its fields."""

import dataclasses
import typing
from collections.abc import Sequence

from hlr_jax import facts
from hlr_jax.config import shown
from hlr_jax.config.components import GeometryConfig, LossConfig, ModelConfig, SamplingConfig
from hlr_jax.config.data import DataConfig
from hlr_jax.config.evaluation import EvaluationConfig
from hlr_jax.config.training import OptimizerConfig, ShardingConfig, TrainingConfig
from hlr_jax.config.values import require, typed


@dataclasses.dataclass(frozen=True, repr=False)
class Config:
    """Everything that decides a run's numbers.

    `hlr_jax.runs.compatibility` checks which fields go together.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    geometry: GeometryConfig = dataclasses.field(default_factory=GeometryConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    # Of random numbers: the first rows, the order of an epoch, negatives, histories.
    seed: int = 2021
    # Modules that register relations, geometries, losses or samplers: what --import names.
    imports: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", typed("seed", int, self.seed))
        object.__setattr__(self, "imports", typed("imports", Sequence[str], self.imports))
        require(0 <= self.seed < 2**32, "seed", self.seed, "use 0 to 2^32 - 1")

    def __repr__(self) -> str:
        return shown.config(self)

    def _repr_html_(self) -> str:
        texts = {
            name: shown.line(value) if dataclasses.is_dataclass(value) else repr(value)
            for name, value in shown.changed(self).items()
        }
        return facts.as_html("Config (other fields have their defaults)", texts)


# The class of each section, and the fields beside the sections.
SECTIONS = {
    field.name: typing.cast(type, field.default_factory)
    for field in dataclasses.fields(Config)
    if field.default_factory is not dataclasses.MISSING
}
ALONE = [field.name for field in dataclasses.fields(Config) if field.name not in SECTIONS]

"""The trials of a sweep, and which of them is best."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import polars as pl

from hlr_jax.config import Config
from hlr_jax.tuning import search_space
from hlr_jax.tuning.search_space import Space, Value


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    Attributes:
      state: complete; pruned: stopped as worse than others; timeout: stopped when the sweep's time
        was over; diverged; refused: its values do not go together; interrupted: is not counted.
      value: of the objective on validation, in the best epoch; None if no epoch was finished.
      best_epoch: from 1; 0 without a value.
      seconds: how long it took; None if interrupted.
      reason: why it diverged or was refused.
      parameters: the values that it tried, of the fields that its classes use.
    """

    number: int
    state: str
    value: float | None
    best_epoch: int
    seconds: float | None
    reason: str
    parameters: Mapping[str, Value]

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that were asked for."""
        return self.state != "interrupted"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything that a sweep has found so far.

    Attributes:
      config: what is not varied.
      trials: in the order of their numbers.
    """

    config: Config
    space: Space
    objective: str
    trials: Sequence[Trial]

    @property
    def sign(self) -> int:
        """1 if the objective is to be high, -1 if it is to be low."""
        return -1 if self.objective == "loss" else 1

    @property
    def counted(self) -> list[Trial]:
        """The trials that were not interrupted."""
        return [trial for trial in self.trials if trial.counts]

    @property
    def seconds(self) -> float:
        """The time of all counted trials together."""
        return math.fsum(trial.seconds or 0.0 for trial in self.counted)

    @property
    def ranked(self) -> list[Trial]:
        """Trials with a value that can be trained to their end, best first."""
        kept = [trial for trial in self.counted if trial.state != "diverged"]
        return sorted(
            (trial for trial in kept if trial.value is not None),
            key=lambda trial: (-self.sign * (trial.value or 0.0), trial.number),
        )

    @property
    def best_config(self) -> Config:
        """The configuration of the best trial, once there is one."""
        return search_space.with_values(self.config, self.ranked[0].parameters)

    def table(self, trials: Sequence[Trial]) -> pl.DataFrame:
        """Return a row for each trial, with a column for each varied field (empty if unused)."""
        columns = {
            "trial": [trial.number for trial in trials],
            "state": [trial.state for trial in trials],
            self.objective: [trial.value for trial in trials],
            "best_epoch": [trial.best_epoch or None for trial in trials],
            "seconds": [trial.seconds and round(trial.seconds, 3) for trial in trials],
        }
        columns |= {f: [trial.parameters.get(f) for trial in trials] for f in self.space}
        return pl.DataFrame(columns, strict=False)

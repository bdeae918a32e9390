"""Where the states of a run are kept, and how far it has come."""

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from hlr_jax.config import TrainingConfig
from hlr_jax.training.state import TrainState
from hlr_jax.types import Params


class Progress(NamedTuple):
    """How far a run has come; stored beside its state.

    Attributes:
      epochs: epochs completed.
      seconds: training time so far, without compilation, validation and saving.
      best_epoch: the selected epoch, from 1; 0 before there is one.
      best: its validation values.
      parts: of the users, which decide the batches of an epoch.
      rollbacks: how often the run went back to the start of an epoch; each halved the learning
        rate.
      warnings: what was wrong with the training so far, a line each.
      log_checksum: of what was reported of these epochs (`checksum_of`).
    """

    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best: dict[str, float] = {}  # noqa: RUF012 - never changed in place
    parts: int = 1
    rollbacks: int = 0
    warnings: tuple[str, ...] = ()
    log_checksum: int = 0

    def reported(self, record: Mapping[str, Any]) -> "Progress":
        """Note what is reported of an epoch."""
        return self._replace(log_checksum=checksum_of([record], self.log_checksum))

    def warned(self, warning: str) -> "Progress":
        """Add a warning."""
        return self._replace(warnings=(*self.warnings, warning))

    def is_improved_by(self, values: dict[str, float], select: str) -> bool:
        """Tell whether these validation values are better: a lower loss, or a higher metric.

        Without values, as without a validation split, the last epoch is the best.
        """
        if not self.best_epoch or not values:
            return True
        sign = -1 if select == "loss" else 1
        return sign * values[select] > sign * self.best[select]

    def is_over(self, training: TrainingConfig) -> bool:
        """Tell whether there is no epoch to train any more."""
        return self.lost_patience(training) or self.epochs >= training.epochs

    def lost_patience(self, training: TrainingConfig) -> bool:
        """Tell whether no epoch was better for as many as `training.patience` allows."""
        patience = training.patience
        return bool(patience) and self.epochs - self.best_epoch >= patience


def checksum_of(records: Iterable[Mapping[str, Any]], before: int = 0) -> int:
    """Compute the CRC-32 of records in JSON, each after that of those before it."""
    for record in records:
        before = zlib.crc32(json.dumps(record, sort_keys=True).encode(), before)
    return before


@runtime_checkable
class Store(Protocol):
    """Where `fit` keeps its states; see `checkpoints` and `background` in `hlr_jax.runs`."""

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None: ...
    def restore_best(self, like: Params) -> Params: ...
    def save(self, state: TrainState, progress: Progress) -> None: ...
    def save_best(self, state: TrainState, progress: Progress) -> None: ...


class MemoryStore:
    """Keeps the best parameters of a run that writes no files."""

    def __init__(self) -> None:
        self.best: Params | None = None

    def restore(self, like: TrainState) -> None:
        return None

    def restore_best(self, like: Params) -> Params:
        assert self.best is not None, "nothing was saved"
        return self.best

    def save(self, state: TrainState, progress: Progress) -> None:
        pass

    def save_best(self, state: TrainState, progress: Progress) -> None:
        # A copy, where the parameters are: the next step reuses the state's memory.
        self.best = jax.tree.map(jnp.copy, state.params)

"""What a run does when loss or parameters are no longer finite: stop, or go back and slow down."""

import math
from typing import Protocol, runtime_checkable

from absl import logging

from hlr_jax.config import Config
from hlr_jax.errors import DivergedError
from hlr_jax.training.optimizers import GivenOptimizer, Optimizer
from hlr_jax.training.state import TrainState, copied
from hlr_jax.training.store import Progress

# Each rollback multiplies the learning rate by it.
SLOWER = 0.5


@runtime_checkable
class Retreat(Protocol):
    """Where a run goes back to."""

    # Whether states within an epoch are stored.
    saves_within_epochs: bool

    def mark(self, state: TrainState, progress: Progress) -> None:
        """Note that an epoch begins with this state, or goes on with it."""

    def take(self, error: DivergedError) -> tuple[TrainState, Progress]:
        """Return the marked state, and the progress from which to go on.

        Raises:
          DivergedError: the run is to stop.
        """


class Stop:
    """Goes back nowhere."""

    saves_within_epochs = True

    def __init__(self, config: Config, optimizer: Optimizer) -> None:
        self._config, self._optimizer = config, optimizer

    def mark(self, state: TrainState, progress: Progress) -> None:
        pass

    def take(self, error: DivergedError) -> tuple[TrainState, Progress]:
        rate = rate_of(self._config, self._optimizer, Progress())
        raise DivergedError(
            f"{error}; use a lower config.optimizer.learning_rate (now {rate}), set "
            "config.optimizer.gradient_clip, or set config.training.on_nonfinite='rollback': the "
            "same command then goes on from the last checkpoint, slower where it must"
        ) from None


class Rollback:
    """Goes back to the start of the epoch, so many times in a run.

    The store has no other state than the marked ones, and what follows is a function of that and
    of `Progress.rollbacks`: so a run that is interrupted goes back to where it would have.
    """

    saves_within_epochs = False

    def __init__(self, most: int) -> None:
        self.most = most

    def mark(self, state: TrainState, progress: Progress) -> None:
        self._state, self._progress = copied(state), progress

    def take(self, error: DivergedError) -> tuple[TrainState, Progress]:
        number = self._progress.rollbacks + 1
        if number > self.most:
            raise DivergedError(
                f"{error}; went back {self.most} times, all that config.training.rollbacks allows, "
                f"down to {SLOWER**self.most:g} times the learning rate: use a lower "
                "config.optimizer.learning_rate, or set config.optimizer.gradient_clip"
            ) from None
        warning = (
            f"{error}; goes back to step {int(self._state.step)} and on with "
            f"{SLOWER**number:g} times the learning rate (rollback {number} of {self.most})"
        )
        logging.warning(warning)
        self._progress = self._progress._replace(rollbacks=number).warned(warning)
        return copied(self._state), self._progress


def retreat_of(config: Config, optimizer: Optimizer) -> Retreat:
    """Build what `config.training.on_nonfinite` names."""
    if config.training.on_nonfinite == "rollback":
        return Rollback(config.training.rollbacks)
    return Stop(config, optimizer)


def rate_of(config: Config, optimizer: Optimizer, progress: Progress) -> str:
    """Name the learning rate that a run has now, for people."""
    slowed = f" times {SLOWER**progress.rollbacks:g}" if progress.rollbacks else ""
    if isinstance(optimizer, GivenOptimizer):
        return f"that of the optimizer that was given{slowed}"
    return f"{config.optimizer.learning_rate:g}{slowed}"


def check_values(values: dict[str, float], epoch: int) -> None:
    """Raise DivergedError for validation values that are not finite."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(
            f"{', '.join(bad)} of the validation split is not finite after epoch {epoch}, though "
            "the parameters are"
        )

"""The loop over epochs: progress, validation, checkpoints, early stopping."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array

from hlr_jax.config import Config, TrainingConfig
from hlr_jax.errors import DivergedError
from hlr_jax.interrupts import StopRequest
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.progress import Shown, digits, shown
from hlr_jax.sampling.epoch_order import num_steps
from hlr_jax.training import device_memory
from hlr_jax.training.epoch import EpochRows, Recipe, advance
from hlr_jax.training.inputs import Positives, shuffled_rows
from hlr_jax.training.spans import SentSpan
from hlr_jax.training.state import Keys, TrainState, check_step, new_state, state_shapes
from hlr_jax.types import Params

# What is reported of an epoch, and what receives it.
Record = dict[str, int | float]
OnEpoch = Callable[[Record], None]

# Progress is shown, and an interrupt noticed, about this often.
CHUNK_SECONDS = 1.0
# What an interrupted run says.
RESUMED = "the same command goes on from the last checkpoint"


def ignore_epoch(record: Record) -> None:
    """Do nothing with the record of an epoch."""


class Progress(NamedTuple):
    """How far a run has come; stored beside its state.

    Attributes:
      epochs: epochs completed.
      seconds: training time so far, without compilation, validation and saving.
      best_epoch: the selected epoch, from 1; 0 before there is one.
      best: its validation values.
      parts: of the users, which decide the batches of an epoch.
    """

    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best: dict[str, float] = {}  # noqa: RUF012 - never changed in place
    parts: int = 1

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


@dataclasses.dataclass(frozen=True)
class Program:
    """What a run trains on, and how.

    Attributes:
      config: of the run; its training section says for how long.
      recipe: what a step does.
      placement: where parameters and positives are.
      positives: what batches are drawn from.
    """

    config: Config
    recipe: Recipe
    placement: Placement
    positives: Positives

    @functools.cached_property
    def placed_recipe(self) -> Recipe:
        """The recipe with its numbers and arrays on the devices, put there once."""

        def placed(x: Any) -> Array:
            # As float32, also where JAX's default is float64: so parameters stay what they are.
            return self.placement.put(np.float32(x) if isinstance(x, float) else x)

        return jax.tree.map(placed, self.recipe)

    @property
    def steps_per_epoch(self) -> int:
        return num_steps(len(self.positives), self.config.training.batch_size)


def fit(
    program: Program,
    params: Params,
    validate: Callable[[Params], dict[str, float]],
    store: Store,
    on_epoch: OnEpoch = ignore_epoch,
    show_progress: bool = True,
) -> tuple[Params, Progress]:
    """Train from `params`, or from where the store left off, and return the best epoch's.

    Args:
      params: donated; the caller's arrays cannot be used afterwards.
      validate: validation values of parameters, `loss` and whatever else may select.
      on_epoch: receives one flat record per epoch.

    Returns:
      The selected parameters, and the progress at the end.

    Raises:
      DivergedError: loss or parameters are no longer finite.
      InputError: the store's state is not of the epoch that its progress names.
      KeyboardInterrupt: the process was asked to stop (SIGINT, SIGTERM, SIGHUP); the store has the
        state.
    """
    training, placement = program.config.training, program.placement
    like = state_shapes(params, program.recipe.optimizer, placement)
    restored = store.restore(like)
    state, progress = restored or (
        new_state(params, program.recipe.optimizer, like),
        Progress(),
    )
    del params
    check_step(int(state.step), progress.epochs, program.steps_per_epoch)
    progress = _with_parts(progress, program, int(state.step))
    key = Keys.of(program.config.seed).train
    with StopRequest() as stop_request, _progress_bar(program, state, show_progress) as bar:
        session = _Session(program, store, stop_request, bar)
        while not progress.is_over(training):
            epoch_key = jax.random.fold_in(key, progress.epochs)
            state, progress = session.train_epoch(state, progress, epoch_key)
            with session.saved_if_stopped(state, progress):
                values = validate(state.params)
            progress = progress._replace(epochs=progress.epochs + 1)
            if progress.is_improved_by(values, training.selection_metric):
                progress = progress._replace(best_epoch=progress.epochs, best=values)
                store.save_best(state, progress)
            on_epoch(_record(state, progress, values))
            _told(bar, progress, values, training.selection_metric)
            state = state.with_new_sums()
            session.save(state, progress)
            if any(processes.largest(stop_request.received)):
                raise KeyboardInterrupt(RESUMED)
    return store.restore_best(like.params), progress


class _Session:
    """Trains epochs in spans of about `CHUNK_SECONDS`, and saves in between.

    The host reads the loss of a span after it has sent the next one, so that the devices do not
    wait for it. Before it saves, and at the end of an epoch, it reads all.
    """

    def __init__(
        self, program: Program, store: Store, stop_request: StopRequest, bar: Shown
    ) -> None:
        self.program = program
        self.store = store
        self.stop_request = stop_request
        self.bar = bar
        self.is_compiled = False
        self.chunk = 1
        self.sent: list[SentSpan] = []  # And not read yet.
        self.clock = self.last_save = time.perf_counter()
        self.seconds_per_step = 0.0  # Of what was read last; 0 if nothing was.

    def train_epoch(
        self, state: TrainState, progress: Progress, key: Array
    ) -> tuple[TrainState, Progress]:
        """Take the steps of an epoch that are left, and return state and progress after them."""
        training, steps = self.program.config.training, self.program.steps_per_epoch
        rows = shuffled_rows(self.program.positives, training.batch_size, key)
        done = int(state.step) - progress.epochs * steps
        if not self.is_compiled:
            state = self._compiled(state, rows)
            self.bar.begin()
        self.bar.describe(f"epoch {progress.epochs + 1}/{training.epochs}")
        while done < steps:
            stop = min(done + self.chunk, steps)
            state = self._send(state, rows, (done, stop))
            done = stop
            progress = self._read(progress, leave=0 if done == steps else 1)
            # All processes do the same, whatever their clocks say and whoever is interrupted.
            seconds, save_age, is_stopped = processes.largest(
                self.seconds_per_step,
                time.perf_counter() - self.last_save,
                self.stop_request.received,
            )
            if seconds:
                self.chunk = max(1, min(2 * self.chunk, int(CHUNK_SECONDS / seconds)))
            if is_stopped or save_age > 60 * training.checkpoint_minutes:
                progress = self._read(progress)
                self.save(state, progress)
            if is_stopped:
                raise KeyboardInterrupt(RESUMED)
        return state, progress

    @contextlib.contextmanager
    def saved_if_stopped(self, state: TrainState, progress: Progress) -> Iterator[None]:
        """Let a stop end work that a resumed run does again, as validation, and save before.

        Several processes end it: one of them alone would leave the others waiting.
        """
        if processes.count() > 1:
            yield
            return
        try:
            with self.stop_request.raised():
                yield
        except KeyboardInterrupt:
            self.save(state, progress)
            raise KeyboardInterrupt(RESUMED) from None

    def save(self, state: TrainState, progress: Progress) -> None:
        """Store the state."""
        self.store.save(state, progress)
        self.last_save = time.perf_counter()

    def _compiled(self, state: TrainState, rows: EpochRows) -> TrainState:
        """Compile what an epoch runs by taking no steps, so that its times are of training alone.

        (What `lower().compile()` makes is not kept for other calls: a sweep would compile again.)

        Raises:
          InputError: a step does not fit into the memory of a device.
        """
        program = self.program
        recipe, placement = program.placed_recipe, program.placement
        shapes = device_memory.shapes_of(state, placement)
        room = device_memory.room_for_steps(state, placement)
        try:
            state = advance(state, rows, (0, 0), recipe, placement)
            jax.block_until_ready(state.step)
        except jax.errors.JaxRuntimeError as error:
            if not device_memory.is_exhausted(error):
                raise
            whole = program.config, placement
            raise device_memory.too_large(whole, shapes, rows, recipe, room) from error
        for ends_epoch in (False, True):
            SentSpan.of(state, (0, 0), ends_epoch)
        self.is_compiled = True
        return state

    def _send(self, state: TrainState, rows: EpochRows, span: tuple[int, int]) -> TrainState:
        """Tell the devices to take the steps of a span, and wait for nothing."""
        program = self.program
        if not self.sent:
            self.clock = time.perf_counter()
        state = advance(state, rows, span, program.placed_recipe, program.placement)
        ends_epoch = span[1] == program.steps_per_epoch
        self.sent.append(SentSpan.of(state, span, ends_epoch))
        return state

    def _read(self, progress: Progress, leave: int = 0) -> Progress:
        """Wait for the spans that were sent, but for the newest `leave`, and count their time.

        Raises:
          DivergedError: loss or parameters are no longer finite.
        """
        batch_size, num_rows = self.program.config.training.batch_size, len(self.program.positives)
        before, steps = self.clock, 0
        while len(self.sent) > leave:
            span = self.sent.pop(0)
            loss, now = span.loss(), time.perf_counter()
            seconds, self.clock = now - self.clock, now
            # The loss is that of before a step, the parameters are those of after it.
            if not (math.isfinite(loss) and span.is_finite):
                raise self._diverged(progress, span)
            steps += span.steps
            progress = progress._replace(seconds=progress.seconds + seconds)
            self.bar.note(loss=digits(loss))
            self.bar.advance(min(span.stop * batch_size, num_rows) - span.start * batch_size)
        self.seconds_per_step = (self.clock - before) / steps if steps else 0.0
        return progress

    def _diverged(self, progress: Progress, span: SentSpan) -> DivergedError:
        rate = self.program.config.optimizer.learning_rate
        step = progress.epochs * self.program.steps_per_epoch + span.start
        return DivergedError(
            f"loss or parameters are no longer finite in epoch {progress.epochs + 1}, "
            f"at most {span.steps} steps after step {step}; "
            f"use a lower config.optimizer.learning_rate (now {rate}) or set "
            "config.optimizer.gradient_clip"
            + (f"; the best epoch so far is {progress.best_epoch}" if progress.best_epoch else "")
        )


def _with_parts(progress: Progress, program: Program, step: int) -> Progress:
    """Note the parts of the users, with a warning where an epoch goes on with other ones."""
    parts = program.placement.parts
    if progress.parts != parts and step % program.steps_per_epoch:
        logging.warning(
            "the run was interrupted in an epoch of batches from %d user parts and goes on with "
            "%d: some %s of this epoch are taken twice, others not; to avoid it set "
            "config.sharding.user_parts=%d",
            *(progress.parts, parts, program.config.training.batch_of, progress.parts),
        )
    return progress._replace(parts=parts)


def _progress_bar(program: Program, state: TrainState, show_progress: bool) -> Shown:
    training, num_rows = program.config.training, len(program.positives)
    done = _rows_taken(int(state.step), program.steps_per_epoch, num_rows, training.batch_size)
    is_shown = show_progress and processes.is_first()
    bar = shown(training.epochs * num_rows, training.batch_of, "", done, is_shown)
    bar.describe("compiling")
    return bar


def _told(bar: Shown, progress: Progress, values: dict[str, float], select: str) -> None:
    """Show how an epoch turned out."""
    if values:
        bar.note(**{f"valid {select}": digits(values[select])})
        bar.note(best=f"epoch {progress.best_epoch}")
    bar.end_part()


def _record(state: TrainState, progress: Progress, values: dict[str, float]) -> Record:
    """Collect what is reported of an epoch."""
    return {
        "epoch": progress.epochs,
        "step": int(state.step),
        "train_loss": state.mean_loss(),
        **{f"valid_{name}": value for name, value in values.items()},
        "seconds": progress.seconds,
    }


def _rows_taken(step: int, steps: int, num_rows: int, batch_size: int) -> int:
    """Count the rows of so many steps; the last batch of an epoch may be short."""
    epochs, rest = divmod(step, steps)
    return epochs * num_rows + rest * batch_size

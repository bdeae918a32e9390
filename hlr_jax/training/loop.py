"""The loop over epochs: progress, validation, checkpoints, early stopping."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Array

from hlr_jax.config import Config
from hlr_jax.errors import DivergedError
from hlr_jax.interrupts import StopRequest
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.progress import Shown, digits, shown
from hlr_jax.sampling.epoch_order import num_steps
from hlr_jax.training import device_memory, motion, spans
from hlr_jax.training.epoch import EpochRows, Recipe, advance
from hlr_jax.training.inputs import Positives, shuffled_rows
from hlr_jax.training.retreat import SLOWER, Retreat, check_values, rate_of, retreat_of
from hlr_jax.training.spans import SentSpan
from hlr_jax.training.state import Keys, TrainState, check_step, new_state, state_shapes
from hlr_jax.training.store import Progress, Store
from hlr_jax.types import Params

# What is reported of an epoch, and what receives it.
Record = dict[str, int | float]
OnEpoch = Callable[[Record], None]

# Progress is shown, and an interrupt noticed, about this often.
CHUNK_SECONDS = 1.0
# What a warning says of a learning rate, once in a run.
_TOO_HIGH = "is too high"
# What an interrupted run says.
RESUMED = "the same command goes on from the last checkpoint"


def ignore_epoch(record: Record) -> None:
    """Do nothing with the record of an epoch."""


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

    def slowed(self, factor: float) -> "Program":
        """The same with all learning rates multiplied."""
        return dataclasses.replace(self, recipe=self.recipe.slowed(factor))


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
      DivergedError: loss or parameters are no longer finite, and `config.training.on_nonfinite`
        lets the run stop. The store has no state that is not finite.
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
        session = _Session(program.slowed(SLOWER**progress.rollbacks), store, stop_request, bar)
        retreat = retreat_of(program.config, program.recipe.optimizer)
        while not progress.is_over(training):
            epoch_key = jax.random.fold_in(key, progress.epochs)
            retreat.mark(state, progress)
            try:
                state, progress = session.train_epoch(state, progress, epoch_key, retreat)
                with session.saved_if_stopped(state, progress, retreat):
                    values = validate(state.params)
                check_values(values, progress.epochs + 1)
            except DivergedError as error:
                state, progress = retreat.take(error)
                session.begin_again(state, progress)
                continue
            progress = progress._replace(epochs=progress.epochs + 1)
            if progress.is_improved_by(values, training.selection_metric):
                progress = progress._replace(best_epoch=progress.epochs, best=values)
                store.save_best(state, progress)
            record = _record(state, progress, values)
            on_epoch(record)
            progress = progress.reported(record)
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
        self.shown_rows = 0  # Of this epoch.
        self.clock = self.last_save = time.perf_counter()
        self.seconds_per_step = 0.0  # Of what was read last; 0 if nothing was.

    def train_epoch(
        self, state: TrainState, progress: Progress, key: Array, retreat: Retreat
    ) -> tuple[TrainState, Progress]:
        """Take the steps of an epoch that are left, and return state and progress after them.

        Raises:
          DivergedError: loss or parameters are no longer finite.
        """
        training, steps = self.program.config.training, self.program.steps_per_epoch
        rows = shuffled_rows(self.program.positives, training.batch_size, key)
        done = int(state.step) - progress.epochs * steps
        if not self.is_compiled:
            state = self._compiled(state, rows)
            self.bar.begin()
        self.bar.describe(f"epoch {progress.epochs + 1}/{training.epochs}")
        self.shown_rows = 0
        frozen = self.program.recipe.objective.frozen
        is_watched, before = self._is_watched(progress), motion.NO_ROWS
        while done < steps:
            stop = min(done + self.chunk, steps)
            if is_watched:  # Then the last step goes alone, and rows are compared.
                stop = min(stop, max(steps - 1, done + 1))
                before = motion.sampled(state.params, frozen) if stop == steps else {}
            state = self._send(state, rows, (done, stop))
            done = stop
            progress = self._read(state, progress, leave=0 if done == steps else 1)
            if before and done == steps:
                progress = self._warned(state, progress, before)
            # All processes do the same, whatever their clocks say and whoever is interrupted.
            seconds, save_age, is_stopped = processes.largest(
                self.seconds_per_step,
                time.perf_counter() - self.last_save,
                self.stop_request.received,
            )
            if seconds:
                self.chunk = max(1, min(2 * self.chunk, int(CHUNK_SECONDS / seconds)))
            is_due = is_stopped or save_age > 60 * training.checkpoint_minutes
            if is_due and retreat.saves_within_epochs:
                progress = self._read(state, progress)
                if done < steps:
                    self._check(state, progress)
                self.save(state, progress)
            if is_stopped:
                raise KeyboardInterrupt(RESUMED)
        return state, progress

    def begin_again(self, state: TrainState, progress: Progress) -> None:
        """Forget what was sent, and go on from a state that the run has gone back to."""
        self.sent.clear()
        self.bar.advance(-self.shown_rows)
        self.program = self.program.slowed(SLOWER)
        self.save(state, progress)

    @contextlib.contextmanager
    def saved_if_stopped(
        self, state: TrainState, progress: Progress, retreat: Retreat
    ) -> Iterator[None]:
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
            if retreat.saves_within_epochs:
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
        before = motion.sampled(state.params, recipe.objective.frozen)
        motion.fault(recipe.objective, before, state.params)
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

    def _read(self, state: TrainState, progress: Progress, leave: int = 0) -> Progress:
        """Wait for the spans that were sent, but for the newest `leave`, and count their time.

        Args:
          state: after the newest.

        Raises:
          DivergedError: loss or parameters are no longer finite.
        """
        batch_size, num_rows = self.program.config.training.batch_size, len(self.program.positives)
        before, steps = self.clock, 0
        while len(self.sent) > leave:
            span = self.sent.pop(0)
            loss, now = span.loss(), time.perf_counter()
            seconds, self.clock = now - self.clock, now
            if not math.isfinite(loss):
                raise self._diverged(state, progress)
            # The loss is that of before a step, the parameters are those of after it.
            if bad := span.not_finite():
                raise self._diverged(state, progress, bad)
            steps += span.steps
            progress = progress._replace(seconds=progress.seconds + seconds)
            self.bar.note(loss=digits(loss))
            taken = min(span.stop * batch_size, num_rows) - span.start * batch_size
            self.bar.advance(taken)
            self.shown_rows += taken
        self.seconds_per_step = (self.clock - before) / steps if steps else 0.0
        return progress

    def _check(self, state: TrainState, progress: Progress) -> None:
        """Raise DivergedError if the state is not to be stored."""
        if bad := spans.not_finite(state):
            raise self._diverged(state, progress, bad)

    def _diverged(
        self, state: TrainState, progress: Progress, arrays: Sequence[str] = ()
    ) -> DivergedError:
        """Say what is not finite, and since when: no step is taken after such a loss.

        Args:
          arrays: that are not; without any it is the loss.
        """
        what = f"{_listed(arrays) or 'the loss'} is no longer finite {'after' if arrays else 'in'}"
        what += f" step {int(state.step)}, in epoch {progress.epochs + 1}"
        if not arrays and (bad := spans.not_finite(state)):
            what += f", which left such numbers in {_listed(bad)}"
        if progress.best_epoch:
            what += f"; the best epoch so far is {progress.best_epoch}"
        return DivergedError(what)

    def _is_watched(self, progress: Progress) -> bool:
        """Tell whether it is to be seen how the last step of this epoch moves rows."""
        config, steps = self.program.config, self.program.steps_per_epoch
        warmup = config.optimizer.warmup_epochs * steps
        is_told = any(_TOO_HIGH in warning for warning in progress.warnings)
        return not is_told and motion.is_watched((progress.epochs + 1) * steps, steps, warmup)

    def _warned(self, state: TrainState, progress: Progress, before: motion.Rows) -> Progress:
        """Warn where the learning rate is too high, by how the last step moved rows."""
        objective = self.program.placed_recipe.objective
        fault = motion.fault(objective, before, state.params)
        if not fault:
            return progress
        rate = rate_of(self.program.config, self.program.recipe.optimizer, progress)
        warning = (
            f"the learning rate ({rate}) {_TOO_HIGH}: in epoch {progress.epochs + 1} {fault}; "
            "set config.optimizer.learning_rate to a tenth of it, or less"
        )
        logging.warning(warning)
        return progress.warned(warning)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


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
    epochs, steps = divmod(int(state.step), program.steps_per_epoch)
    done = epochs * num_rows + steps * training.batch_size  # An epoch's last batch may be short.
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

"""The train state, one step, one epoch, and the loop over epochs."""

import functools
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from hlr_jax import functional, optimizers, sampling
from hlr_jax.config import Config, LossConfig
from hlr_jax.errors import DivergedError
from hlr_jax.models import base
from hlr_jax.models.base import History, Relation
from hlr_jax.sampling import Batch, Source

# {"user": [U, d], "item": [I, d], "relation": the module's own parameters}
Params = dict[str, Any]
# What is told of an epoch.
Record = dict[str, int | float]

# Progress is shown, and an interrupt noticed, about this often.
CHUNK_SECONDS = 1.0


class TrainState(struct.PyTreeNode):
    """What a step changes.

    Attributes:
      step: steps taken since the run began.
      params: tables and relation parameters.
      opt_state: Optax's.
      loss_sum: sum of the hinge over this epoch's triplets so far.
      triplets: how many those are.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    loss_sum: Float[Array, ""]
    triplets: Float[Array, ""]

    @classmethod
    def of(cls, params: Params, optimizer: optax.GradientTransformation) -> "TrainState":
        """The state before the first step."""
        return cls(
            jnp.zeros((), jnp.int32), params, optimizer.init(params), jnp.zeros(()), jnp.zeros(())
        )

    def mean_loss(self) -> float:
        """Mean hinge per triplet of this epoch so far."""
        return float(self.loss_sum) / float(self.triplets)

    def with_new_sums(self) -> "TrainState":
        """The state at the start of the next epoch."""
        return self.replace(loss_sum=jnp.zeros(()), triplets=jnp.zeros(()))


class Keys(NamedTuple):
    """The independent random streams of a run."""

    init: Key[Array, ""]
    train: Key[Array, ""]
    valid: Key[Array, ""]
    rank: Key[Array, ""]

    @classmethod
    def of(cls, seed: int) -> "Keys":
        return cls(*jax.random.split(jax.random.key(seed), len(cls._fields)))


def init_params(key: Key[Array, ""], model: Relation, num_users: int, num_items: int) -> Params:
    """Tables from Normal(0, 1/sqrt(d)), and the relation's parameters from its initialisers."""
    user_key, item_key, relation_key = jax.random.split(key, 3)
    scale = model.dim**-0.5
    row = jnp.zeros((1, model.dim))
    history = History(row[:, None], jnp.ones((1, 1), bool)) if model.uses_history else None
    return {
        "user": scale * jax.random.normal(user_key, (num_users, model.dim)),
        "item": scale * jax.random.normal(item_key, (num_items, model.dim)),
        "relation": dict(model.init(relation_key, row, row, history).get("params", {})),
    }


def triplet_distances(
    model: Relation, copy_relation: bool, params: Params, batch: Batch
) -> Float[Array, "b k_plus_1"]:
    """Squared distance of each user, translated, to the positive (first) and the K negatives."""
    user = params["user"][batch.users][:, None]
    items = params["item"][batch.items]
    history = None
    if batch.history is not None:
        history = History(params["item"][batch.history.items][:, None], batch.history.mask[:, None])
    targets = items[:, :1] if copy_relation else items
    relation = base.relation(model, params["relation"], user, targets, history)
    return functional.translated_distance(user, relation, items)


def hinge_of_batch(
    model: Relation, config: LossConfig, num_items: int, params: Params, batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the hinge over the batch, and the number of triplets it is a sum of."""
    distances = triplet_distances(model, config.copy_relation, params, batch)
    hinge = functional.triplet_hinge(distances[:, 0], distances[:, 1:], config.margin)
    if config.rank_weight:
        # CML: only the closest negative counts, weighted by the positive's estimated rank.
        weight = functional.rank_weight(hinge, num_items)
        hinge = (weight * jnp.max(hinge, axis=1))[:, None]
    return jnp.sum(hinge * batch.weight[:, None]), jnp.sum(batch.weight) * hinge.shape[1]


def train_step(
    state: TrainState,
    batch: Batch,
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
) -> TrainState:
    """One gradient step: hinge, Optax update, and projection on the constraints."""

    def objective(params: Params) -> tuple[Array, tuple[Array, Array]]:
        num_items = len(params["item"])
        hinge, triplets = hinge_of_batch(model, config.loss, num_items, params, batch)
        loss = hinge / triplets if config.loss.reduction == "mean" else hinge
        if config.loss.covariance:
            rows = jnp.concatenate([params["user"], params["item"]])
            loss += config.loss.covariance * functional.covariance_penalty(rows)
        return loss, (hinge, triplets)

    grads, (hinge, triplets) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(
        step=state.step + 1,
        params=constrain(params, model, config),
        opt_state=opt_state,
        loss_sum=state.loss_sum + hinge,
        triplets=state.triplets + triplets,
    )


def constrain(params: Params, model: Relation, config: Config) -> Params:
    """Tables projected on their ball (unless frozen), relation parameters on theirs."""
    frozen = {"user": config.training.freeze_user, "item": config.training.freeze_item}
    tables = {
        name: params[name]
        if is_frozen
        else functional.project_on_ball(params[name], config.model.clip_norm)
        for name, is_frozen in frozen.items()
    }
    return {**tables, "relation": model.project(params["relation"])}


def history_length(model: Relation, config: Config) -> int:
    """`P` for this model: 0 if it reads no history."""
    return config.sampling.history_length if model.uses_history else 0


@functools.partial(
    jax.jit, static_argnames=("model", "optimizer", "config"), donate_argnames="state"
)
def train_steps(
    state: TrainState,
    source: Source,
    order: Int[Array, "steps b"],
    key: Key[Array, ""],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
) -> TrainState:
    """Steps `start .. stop - 1` of an epoch as one compiled program, sampling included.

    The bounds are not static: one compilation serves whole epochs and any part of one.
    """
    length = history_length(model, config)

    def one(step: Array, state: TrainState) -> TrainState:
        step_key = jax.random.fold_in(key, step)
        batch = sampling.draw_batch(
            step_key, source, order[step], config.sampling.negatives, length
        )
        return train_step(state, batch, model, optimizer, config)

    return jax.lax.fori_loop(start, stop, one, state)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def mean_loss(
    params: Params, source: Source, key: Key[Array, ""], model: Relation, config: Config
) -> Float[Array, ""]:
    """Mean hinge per triplet over all positives of a source, with negatives drawn by `key`."""
    rows = jnp.arange(len(source.users), dtype=jnp.int32)
    batch_size = min(config.training.batch_size, len(rows))
    steps = sampling.num_steps(len(rows), batch_size)
    rows = jnp.pad(rows, (0, steps * batch_size - len(rows)), constant_values=-1)
    rows = rows.reshape(steps, batch_size)
    length = history_length(model, config)

    def add(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        step_key = jax.random.fold_in(key, step)
        batch = sampling.draw_batch(step_key, source, rows[step], config.sampling.negatives, length)
        part = hinge_of_batch(model, config.loss, source.num_items, params, batch)
        return sums[0] + part[0], sums[1] + part[1]

    total, triplets = jax.lax.fori_loop(0, steps, add, (jnp.zeros(()), jnp.zeros(())))
    return total / triplets


class Progress(NamedTuple):
    """How far a run has come; stored beside its state.

    Attributes:
      epochs: epochs completed.
      seconds: training time so far, without compilation, validation and saving.
      best_epoch: the selected epoch, from 1; 0 before there is one.
      best: its validation values.
    """

    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best: dict[str, float] = {}  # noqa: RUF012 - never changed in place

    def is_improved_by(self, values: dict[str, float], select: str) -> bool:
        """Whether these validation values are better: a lower loss, or a higher metric.

        Without values, as without a validation split, the last epoch is the best.
        """
        if not self.best_epoch or not values:
            return True
        sign = -1 if select == "loss" else 1
        return sign * values[select] > sign * self.best[select]


@runtime_checkable
class Store(Protocol):
    """Where `fit` keeps its states; see `hlr_jax.checkpoints`."""

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
        return jax.tree.map(jnp.asarray, self.best)

    def save(self, state: TrainState, progress: Progress) -> None:
        pass

    def save_best(self, state: TrainState, progress: Progress) -> None:
        # A copy: the next step reuses the state's memory.
        self.best = jax.tree.map(np.array, state.params)


def fit(
    model: Relation,
    params: Params,
    source: Source,
    config: Config,
    validate: Callable[[Params], dict[str, float]],
    store: Store,
    on_epoch: Callable[[Record], None] = lambda record: None,
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
      KeyboardInterrupt: the process was asked to stop (SIGINT, SIGTERM); the store has the state.
    """
    training, num_rows = config.training, len(source.users)
    steps = sampling.num_steps(num_rows, training.batch_size)
    optimizer = optimizers.build(config.optimizer, training, steps)
    state = TrainState.of(params, optimizer)
    state, progress = store.restore(state) or (state, Progress())
    advance = functools.partial(train_steps, model=model, optimizer=optimizer, config=config)
    key = Keys.of(config.seed).train
    last_save = time.perf_counter()

    with (
        StopRequest() as stop_request,
        tqdm(
            total=training.epochs * num_rows,
            initial=min(int(state.step) * training.batch_size, training.epochs * num_rows),
            unit=" triplets",
            unit_scale=True,
            disable=not show_progress,
            dynamic_ncols=True,
        ) as bar,
    ):
        while progress.epochs < training.epochs and not _is_over(progress, training.patience):
            epoch_key = jax.random.fold_in(key, progress.epochs)
            order_key, draw_key = jax.random.split(epoch_key)
            order = sampling.epoch_order(order_key, num_rows, training.batch_size)
            done, chunk = int(state.step) - progress.epochs * steps, 1
            # No steps, but compiled from here on: the times below are of training alone.
            state = advance(state, source, order, draw_key, 0, 0)
            bar.set_description(f"epoch {progress.epochs + 1}/{training.epochs}")
            while done < steps:
                started = time.perf_counter()
                stop = min(done + chunk, steps)
                state = advance(state, source, order, draw_key, done, stop)
                loss = state.mean_loss()
                seconds = time.perf_counter() - started
                # The loss is that of before a step, the parameters are those of after it.
                if not math.isfinite(loss) or (stop == steps and not _all_finite(state.params)):
                    raise DivergedError(
                        f"loss or parameters are no longer finite in epoch {progress.epochs + 1}, "
                        f"at most {stop - done} steps after step {int(state.step) - stop + done}; "
                        "use a lower config.optimizer.learning_rate (now "
                        f"{config.optimizer.learning_rate}) or set config.optimizer.gradient_clip"
                    )
                progress = progress._replace(seconds=progress.seconds + seconds)
                bar.update(min(stop * training.batch_size, num_rows) - done * training.batch_size)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                chunk = max(1, min(2 * chunk, int((stop - done) * CHUNK_SECONDS / seconds)))
                done = stop
                if stop_request.received:
                    store.save(state, progress)
                    raise KeyboardInterrupt
                if time.perf_counter() - last_save > 60 * training.checkpoint_minutes:
                    store.save(state, progress)
                    last_save = time.perf_counter()

            values = validate(state.params)
            progress = progress._replace(epochs=progress.epochs + 1)
            if progress.is_improved_by(values, training.select):
                progress = progress._replace(best_epoch=progress.epochs, best=values)
                store.save_best(state, progress)
            on_epoch(
                {
                    "epoch": progress.epochs,
                    "step": int(state.step),
                    "train_loss": state.mean_loss(),
                    **{f"valid_{name}": value for name, value in values.items()},
                    "seconds": progress.seconds,
                }
            )
            state = state.with_new_sums()
            store.save(state, progress)
            if stop_request.received:
                raise KeyboardInterrupt
            last_save = time.perf_counter()
    return store.restore_best(params), progress


def _is_over(progress: Progress, patience: int) -> bool:
    return bool(patience) and progress.epochs - progress.best_epoch >= patience


def _all_finite(params: Params) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params))


class StopRequest:
    """Notes SIGINT and SIGTERM instead of dying of them, so that training can save first.

    A second signal does what it always does.
    Outside the main thread, where Python allows no signal handlers, it notes nothing.
    """

    def __enter__(self) -> "StopRequest":
        self.received = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        self.received = True
        self.__exit__()

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

"""The train state, one step, and the steps of an epoch as one compiled program."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key

from hlr_jax import devices, functional, objective, optimizers, sampling
from hlr_jax.config import Config
from hlr_jax.models.base import History, Relation
from hlr_jax.objective import Params, row_ids
from hlr_jax.optimizers import Touched
from hlr_jax.sampling import Batch, Source


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

        def zero(x: Array) -> Array:
            # On the devices where it is: others would mean another compilation.
            return jnp.zeros_like(x, device=x.sharding)

        return self.replace(loss_sum=zero(self.loss_sum), triplets=zero(self.triplets))


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


def train_step(
    state: TrainState,
    batch: Batch,
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
    touched: Touched | None = None,
    axis: str | None = None,
) -> TrainState:
    """One gradient step: hinge, Optax update, and projection on the constraints.

    Args:
      batch: this device's part of it.
      touched: the rows that the whole batch uses, to update no others; None updates all.
      axis: over which the parts of the batch are spread.
    """
    touched = touched or optimizers.all_rows(state.params, row_ids(batch))
    gradient, (hinge, triplets) = objective.hinge_gradient(
        model, config.loss, state.params, batch, touched.places, touched.zeros(state.params)
    )
    if axis is not None:
        gradient, hinge, triplets = jax.lax.psum((gradient, hinge, triplets), axis)
    if config.loss.reduction == "mean":
        gradient = jax.tree.map(lambda x: x / triplets, gradient)
    if config.loss.covariance:
        of_tables = objective.covariance_gradient(config.loss, state.params)
        gradient |= {name: gradient[name] + of_tables[name] for name in of_tables}

    def descend(params: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return constrain(optax.apply_updates(params, updates), model, config), opt_state

    params, opt_state = touched.apply(descend, optimizer, state.params, state.opt_state)
    return TrainState(
        step=state.step + 1,
        params=params,
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
    jax.pmap,
    axis_name=devices.AXIS,
    in_axes=(None, None, 0, None, None, None),
    out_axes=None,
    static_broadcasted_argnums=(6, 7, 8),
    donate_argnums=0,
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

    Args:
      order: from `devices.split`, a part of every batch for each device. What is drawn for a row
        does not depend on how many parts there are.
    """
    length = history_length(model, config)
    # The position at which a row was last used, which saves sorting a batch's rows every step.
    only_touched = config.optimizer.rows == "touched"
    last_use = optimizers.LastUse.of(state.params) if only_touched else None

    def one(step: Array, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, last_use = carry
        batch = _draw(key, step, source, order, config, length)
        touched = None
        if last_use is not None:
            touched, last_use = last_use.touched(state.params, batch, devices.AXIS)
        state = train_step(state, batch, model, optimizer, config, touched, devices.AXIS)
        return state, last_use

    return jax.lax.fori_loop(start, stop, one, (state, last_use))[0]


def _draw(
    key: Key[Array, ""],
    step: Int[Array, ""],
    source: Source,
    order: Int[Array, "steps b"],
    config: Config,
    length: int,
) -> Batch:
    """This device's part of a step's batch."""
    first = jax.lax.axis_index(devices.AXIS) * order.shape[1]
    step_key = jax.random.fold_in(key, step)
    return sampling.draw_batch(
        step_key, source, order[step], config.sampling.negatives, length, first
    )


def mean_loss(
    params: Params, source: Source, key: Key[Array, ""], model: Relation, config: Config
) -> float:
    """Mean hinge per triplet over all positives of a source, with negatives drawn by `key`."""
    num_rows = len(source.users)
    batch_size = min(config.training.batch_size, num_rows)
    batches = sampling.in_batches(np.arange(num_rows), batch_size)
    order = devices.split(batches, devices.count_for(model, params))
    hinge, triplets = _sum_of_hinge(params, source, order, key, model, config)
    return float(hinge) / float(triplets)


@functools.partial(
    jax.pmap,
    axis_name=devices.AXIS,
    in_axes=(None, None, 0, None),
    out_axes=None,
    static_broadcasted_argnums=(4, 5),
)
def _sum_of_hinge(
    params: Params,
    source: Source,
    order: Int[Array, "steps b"],
    key: Key[Array, ""],
    model: Relation,
    config: Config,
) -> tuple[Array, Array]:
    length = history_length(model, config)

    def add(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        batch = _draw(key, step, source, order, config, length)
        part = objective.hinge_of_batch(model, config.loss, source.num_items, params, batch)
        return sums[0] + part[0], sums[1] + part[1]

    sums = jax.lax.fori_loop(0, len(order), add, (jnp.zeros(()), jnp.zeros(())))
    return jax.lax.psum(sums, devices.AXIS)

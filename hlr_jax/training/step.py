"""One gradient step."""

import jax
import optax

from hlr_jax.training.exchange import Exchange
from hlr_jax.training.neighbours import Neighbours, NoNeighbours
from hlr_jax.training.objective import Objective, completed_gradient, project
from hlr_jax.training.optimizers import Optimizer
from hlr_jax.training.rows import batch_gradient
from hlr_jax.training.state import TrainState
from hlr_jax.types import Batch, Params


def train_step(
    state: TrainState,
    batch: Batch,
    objective: Objective,
    optimizer: Optimizer,
    exchange: Exchange,
    neighbours: Neighbours | NoNeighbours,
) -> tuple[TrainState, Exchange]:
    """Take one gradient step: gather rows, differentiate the loss, reduce, update, project.

    Args:
      batch: this device's part of it.
      exchange: which rows are updated, and how devices exchange them.
      neighbours: whose mean rows the model reads.

    Returns:
      The new state, and the exchange for the next step.
    """
    plan, exchange = exchange.plan(state.params, batch)
    params = plan.fetched(state.params)
    read = neighbours.widened(objective.model, params)
    gradient, sums = batch_gradient(objective, read, plan.batch, plan.places, plan.zeros(params))
    gradient, sums = plan.reduce(gradient, sums)
    gradient = completed_gradient(objective, gradient, sums[1], state.params, state.step)
    transformation = optimizer.transformation(plan.layout)

    def change(params: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        # Optax adds counts of steps to floats.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = transformation.update(gradient, opt_state, params)
        return project(objective, optax.apply_updates(params, updates)), opt_state

    params, opt_state = plan.update(change, transformation, state.params, state.opt_state)
    state = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        loss_sum=state.loss_sum + sums[0],
        loss_terms=state.loss_terms + sums[1],
    )
    return state, exchange

"""The train state: what a step changes, and how it starts."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Key

from hlr_jax.errors import InputError
from hlr_jax.models.relation import Relation
from hlr_jax.parallel.layout import Layout, spec
from hlr_jax.parallel.placement import Placement
from hlr_jax.training.objective import Objective, project
from hlr_jax.training.optimizers import Optimizer, of_state
from hlr_jax.types import History, Params


class TrainState(struct.PyTreeNode):
    """What a step changes; or the shapes of that, or how it is spread, in the same form.

    Attributes:
      step: int32; steps taken since the run began.
      params: tables and relation parameters.
      opt_state: Optax's.
      loss_sum: float32; sum of the loss over this epoch so far.
      loss_terms: float32; of how many terms that is the weighted sum: triplets, for the hinge.
    """

    step: Any
    params: Params
    opt_state: optax.OptState
    loss_sum: Any
    loss_terms: Any

    @classmethod
    def of(cls, params: Params, optimizer: Optimizer) -> "TrainState":
        """Make the state before the first step."""
        opt_state = optimizer.transformation().init(params)
        return cls(jnp.zeros((), jnp.int32), params, opt_state, jnp.zeros(()), jnp.zeros(()))

    def mean_loss(self) -> float:
        """Average the loss of this epoch so far over its terms."""
        return mean_of(self.loss_sum, self.loss_terms)

    def with_new_sums(self) -> "TrainState":
        """Set the sums to 0, at the start of the next epoch."""

        def zero(x: Array) -> Array:
            # On the devices where it is: others would mean another compilation.
            return jnp.zeros_like(x, device=x.sharding)

        return self.replace(loss_sum=zero(self.loss_sum), loss_terms=zero(self.loss_terms))


@jax.jit
def copied(state: TrainState) -> TrainState:
    """Copy a state where it is: the next step reuses the memory of what it is given."""
    return jax.tree.map(jnp.copy, state)


def check_step(step: int, epochs: int, steps_per_epoch: int) -> None:
    """Raise InputError if a stored state has not completed so many epochs, and not one more."""
    if not 0 <= step - epochs * steps_per_epoch <= steps_per_epoch:
        raise InputError(
            f"the stored state is of step {step}, which is not in epoch {epochs + 1} of "
            f"{steps_per_epoch} steps: it is damaged; train in another folder"
        )


def mean_of(loss_sum: Any, loss_terms: Any) -> float:
    """Average a loss over its terms, of which there may be none."""
    return float(loss_sum) / (float(loss_terms) or 1.0)


class Keys(NamedTuple):
    """The independent random streams of a run."""

    init: Key[Array, ""]
    train: Key[Array, ""]
    valid: Key[Array, ""]
    rank: Key[Array, ""]
    penalty: Key[Array, ""]

    @classmethod
    def of(cls, seed: int) -> "Keys":
        return cls(*jax.random.split(jax.random.key(seed), len(cls._fields)))


class Sizes(NamedTuple):
    """How many rows the tables have, and how many features an item has."""

    users: int
    items: int
    features: int = 0


def init_params(key: Key[Array, ""], model: Relation, sizes: Sizes) -> Params:
    """Draw tables by the model's geometry, and the relation's parameters by its initialisers.

    Without features a model that reads them has no parameters for them.
    """
    user_key, item_key, relation_key = jax.random.split(key, 3)
    extra = model.dim if model.uses_neighbours else 0
    user, item = jnp.zeros((1, model.user_width + extra)), jnp.zeros((1, model.dim + extra))
    history = History.empty(item)
    if model.uses_history:
        history = History(item[:, None], jnp.ones((1, 1), bool))
    relation = dict(model.init(relation_key, user, item, history).get("params", {}))
    if sizes.features:
        penalty = (item, jnp.zeros((1, sizes.features)))
        relation |= model.init(relation_key, *penalty, method="features_penalty")["params"]
    init, vectors = model.geometry.init, sizes.users * (model.user_width // model.dim)
    users = init(user_key, (vectors, model.dim)).reshape(sizes.users, model.user_width)
    items = init(item_key, (sizes.items, model.dim))
    return {"user": users, "item": items, "relation": relation}


def new_params(
    key: Key[Array, ""], objective: Objective, placement: Placement, num_features: int = 0
) -> Params:
    """Draw `init_params` and project them; each device makes its own rows."""
    data = np.asarray(jax.random.key_data(key))
    shapes = param_shapes(objective.model, placement, num_features)
    make = _params_maker(_sizes(placement, num_features), *_shardings_of(shapes))
    return make(data, objective)


@functools.lru_cache
def _params_maker(sizes: Sizes, shardings: tuple[Any, ...], tree: Any) -> Callable[..., Params]:
    """Compile `init_params` once, for all runs of these sizes."""

    def make(data: Array, objective: Objective) -> Params:
        params = init_params(jax.random.wrap_key_data(data), objective.model, sizes)
        return project(objective, params)

    return jax.jit(make, out_shardings=jax.tree.unflatten(tree, shardings))


def _shardings_of(shapes: Any) -> tuple[tuple[Any, ...], Any]:
    """List the shardings of all arrays, and their tree; both can be hashed."""
    leaves, tree = jax.tree.flatten(shapes)
    return tuple(x.sharding for x in leaves), tree


def num_parameters(model: Relation, sizes: Sizes) -> dict[str, int]:
    """Count the parameters of `user` and `item` tables and of the `relation`."""
    return {
        part: sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
        for part, shapes in _shapes(model, sizes).items()
    }


def _shapes(model: Relation, sizes: Sizes) -> Params:
    return jax.eval_shape(lambda: init_params(jax.random.key(0), model, sizes))


def param_shapes(model: Relation, placement: Placement, num_features: int = 0) -> Params:
    """Describe a model's parameters: shapes, types and shardings."""
    shapes = _shapes(model, _sizes(placement, num_features))
    return placement.shapes(shapes, placement.layout.of_params(shapes))


def new_state(params: Params, optimizer: Optimizer, like: TrainState) -> TrainState:
    """Make the state before the first step, from placed parameters, which are donated.

    So are the arrays they were placed from, where that took no copy.

    Args:
      like: the `state_shapes` of these.
    """
    return _state_maker(*_shardings_of(like))(params, optimizer)


@functools.lru_cache
def _state_maker(shardings: tuple[Any, ...], tree: Any) -> Callable[..., TrainState]:
    """Compile `TrainState.of` once, for all runs with such a state."""
    return jax.jit(
        TrainState.of, out_shardings=jax.tree.unflatten(tree, shardings), donate_argnums=0
    )


def state_shapes(params: Params, optimizer: Optimizer, placement: Placement) -> TrainState:
    """Describe a state with parameters like these: shapes, types and shardings."""
    shapes = jax.eval_shape(TrainState.of, params, optimizer)
    return placement.shapes(shapes, state_specs(shapes, optimizer, placement.layout))


def state_specs(state: TrainState, optimizer: Optimizer, layout: Layout) -> Any:
    """Specify how every array of a state is spread, in the same tree."""
    of_params = layout.of_params(state.params)
    of_optimizer = of_state(optimizer.transformation(), state.opt_state, of_params, spec(()))
    others = dict.fromkeys(("step", "loss_sum", "loss_terms"), spec(()))
    return state.replace(params=of_params, opt_state=of_optimizer, **others)


def _sizes(placement: Placement, num_features: int) -> Sizes:
    rows = placement.num_rows
    return Sizes(rows["user"], rows["item"], num_features)

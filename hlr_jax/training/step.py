"""The train state, one step, and the steps of an epoch as one compiled program."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from hlr_jax import functional
from hlr_jax.config import Config, ModelConfig
from hlr_jax.models.relation import History, Relation
from hlr_jax.parallel.layout import ALONE, REPLICATED, Axes, ItemRows, Layout, spec
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling.batches import Batch
from hlr_jax.sampling.sources import Source
from hlr_jax.training import objective, optimizers
from hlr_jax.training.neighbours import Neighbours
from hlr_jax.training.objective import Params
from hlr_jax.training.optimizers import LastUse, Touched


class TrainState(struct.PyTreeNode):
    """What a step changes; or the shapes of that, or how it is spread, in the same form.

    Attributes:
      step: int32; steps taken since the run began.
      params: tables and relation parameters.
      opt_state: Optax's.
      loss_sum: float32; sum of the loss over this epoch so far.
      triplets: float32; of how many terms that is the weighted sum: triplets, for the hinge.
    """

    step: Any
    params: Params
    opt_state: optax.OptState
    loss_sum: Any
    triplets: Any

    @classmethod
    def of(cls, params: Params, optimizer: optax.GradientTransformation) -> "TrainState":
        """The state before the first step."""
        return cls(
            jnp.zeros((), jnp.int32), params, optimizer.init(params), jnp.zeros(()), jnp.zeros(())
        )

    def mean_loss(self) -> float:
        """Mean loss per term of this epoch so far."""
        return float(self.loss_sum) / (float(self.triplets) or 1.0)

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


def init_params(
    key: Key[Array, ""], model: Relation, num_users: int, num_items: int, num_features: int = 0
) -> Params:
    """Tables from Normal(0, 1/sqrt(d)), and the relation's parameters from its initialisers.

    Args:
      num_features: of each item, for a model that reads them; without any it has no parameters
        for them.
    """
    user_key, item_key, relation_key = jax.random.split(key, 3)
    scale = model.dim**-0.5
    extra = model.dim if model.uses_neighbours else 0
    user, item = jnp.zeros((1, model.user_width + extra)), jnp.zeros((1, model.dim + extra))
    history = History(item[:, None], jnp.ones((1, 1), bool)) if model.uses_history else None
    relation = dict(model.init(relation_key, user, item, history).get("params", {}))
    if num_features:
        features = jnp.zeros((1, num_features))
        penalty = (item, features, lambda points: points)
        relation |= model.init(relation_key, *penalty, method="features_penalty")["params"]
    return {
        "user": scale * jax.random.normal(user_key, (num_users, model.user_width)),
        "item": scale * jax.random.normal(item_key, (num_items, model.dim)),
        "relation": relation,
    }


def train_step(
    state: TrainState,
    batch: Batch,
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
    last_use: LastUse | None = None,
    layout: Layout = ALONE,
    num_items: int | None = None,
    read: Params | None = None,
    features: Float[Array, "i f"] | None = None,
) -> tuple[TrainState, LastUse | None]:
    """One gradient step: loss, Optax update, and projection on the constraints.

    Args:
      batch: this device's part of it.
      last_use: to update no other rows than the batch uses; None updates all.
      layout: how tables and the parts of the batch are spread over devices.
      num_items: catalogue size, if the item rows here are not just the catalogue.
      read: what the model reads instead of the parameters themselves: wider rows.
      features: of all items, for a model that reads them.

    Returns:
      The new state, and `last_use` for the next step.
    """
    params, item_rows = read or state.params, None
    if layout.item:
        size = len(params["item"]) * jax.lax.axis_size(layout.item)
        item_rows, batch = ItemRows.of(batch, size, layout.item)
        params = params | {"item": item_rows.fetch(params["item"])}
    if last_use is None:
        touched = optimizers.all_rows(state.params, batch, layout, item_rows)
    else:
        touched, last_use = last_use.touched(state.params, batch, layout, item_rows)
    own = params if read is None else state.params
    gradient, sums = objective.loss_gradient(
        model, config.loss, params, batch, touched.places, touched.zeros(own), num_items
    )
    gradient, (loss, terms) = _sum_over_devices(gradient, sums, touched, layout, state.params)
    if config.loss.reduction == "mean":
        # Very unequal parts of users can leave a batch empty.
        gradient = jax.tree.map(lambda x: x / _at_least_some(terms), gradient)
    if config.loss.covariance:
        of_tables = objective.covariance_gradient(config.loss, state.params)
        gradient |= {name: gradient[name] + of_tables[name] for name in of_tables}
    if features is not None:
        project = on_surface(config.model)
        more = objective.features_gradient(model, state.params, features, project)
        gradient |= {name: jax.tree.map(jnp.add, gradient[name], more[name]) for name in more}

    def descend(params: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return constrain(optax.apply_updates(params, updates), model, config), opt_state

    params, opt_state = touched.apply(descend, optimizer, state.params, state.opt_state)
    state = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        loss_sum=state.loss_sum + loss,
        triplets=state.triplets + terms,
    )
    return state, last_use


def _at_least_some(terms: Array) -> Array:
    return jnp.where(terms > 0, terms, 1)


def _sum_over_devices(
    gradient: Params, sums: tuple[Array, Array], touched: Touched, layout: Layout, params: Params
) -> tuple[Params, tuple[Array, Array]]:
    """The gradient of the rows that this device has, from the parts of all devices."""
    of_items = None
    if touched.item_places is not None:
        # Every row's gradient goes to the block that has the row.
        is_whole = touched.rows["item"] is ...
        axes = layout.item if is_whole else layout.batch
        parts = jax.lax.all_gather(gradient["item"], axes, tiled=True)
        size = len(params["item"] if is_whole else touched.rows["item"])
        zeros = jnp.zeros((size, parts.shape[1]))
        of_items = zeros.at[touched.item_places].add(parts, mode="drop")
        of_items = _psum(of_items, tuple(a for a in layout.batch if a not in axes))
    # Nobody else has a part of the gradient of rows that are cut along all axes.
    is_own = {"user": bool(layout.user), "item": bool(layout.item)}
    own = {name: x for name, x in gradient.items() if is_own.get(name)}
    shared = {name: x for name, x in gradient.items() if name not in own}
    shared, sums = _psum((shared, sums), layout.batch)
    gradient = own | shared
    return (gradient if of_items is None else gradient | {"item": of_items}), sums


def _psum(tree: Any, axes: Axes) -> Any:
    # XLA would copy what it sums over a single device.
    return jax.lax.psum(tree, axes) if axes and jax.lax.axis_size(axes) > 1 else tree


def on_surface(config: ModelConfig) -> Callable[[Array], Array]:
    """The projection of vectors `[.., d]` on the ball or sphere that rows are kept in."""
    is_ball = config.surface == "ball"
    project = functional.project_on_ball if is_ball else functional.project_on_sphere
    return lambda vectors: project(vectors, config.clip_norm)


def constrain(params: Params, model: Relation, config: Config) -> Params:
    """Tables projected on their ball or sphere (unless frozen), relation parameters on theirs."""
    project_on_surface = on_surface(config.model)
    frozen = {"user": config.training.freeze_user, "item": config.training.freeze_item}

    def project(table: Array) -> Array:
        vectors = table.reshape(-1, model.dim)  # a user's row may be several
        return project_on_surface(vectors).reshape(table.shape)

    tables = {
        name: params[name] if is_frozen else project(params[name])
        for name, is_frozen in frozen.items()
    }
    return {**tables, "relation": model.project(params["relation"])}


def history_length(model: Relation, config: Config) -> int:
    """`P` for this model: 0 if it reads no history."""
    return config.sampling.history_length if model.uses_history else 0


def draw_batch(
    key: Key[Array, ""],
    source: Source,
    rows: Int[Array, "b"],
    step: Array | int,
    model: Relation,
    config: Config,
) -> Batch:
    """`sampling.draw_batch`, or `batch_of_users`, as a configuration wants it."""
    drawn, pool = config.sampling, None
    if drawn.pool == "catalogue":
        pool = jnp.arange(source.num_items, dtype=jnp.int32)
    elif drawn.pool == "batch":
        pool = sampling.draw_pool(key, jnp.asarray(step), source, drawn.negatives)
    if source.items is None:
        assert pool is not None
        return sampling.batch_of_users(source, rows, pool, config.loss.balance)
    length = history_length(model, config)
    return sampling.draw_batch(
        key, source, rows, drawn.negatives, length, pool, config.loss.balance
    )


def reader(model: Relation, source: Source) -> Callable[[Params], Params | None]:
    """What a model reads of parameters; None if that is just these."""
    if not model.uses_neighbours:
        return lambda params: None
    return Neighbours.of(source.history, source.num_items).widened


def _steps(
    state: TrainState,
    source: Source,
    order: Int[Array, "steps b"],
    key: Key[Array, ""],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
    layout: Layout,
) -> TrainState:
    """What each device does in `train_steps`."""
    # The position at which a row was last used, which saves sorting a batch's rows every step.
    only_touched = config.optimizer.rows == "touched"
    last_use = LastUse.of(state.params) if only_touched else None
    read = reader(model, source)

    def one(step: Array, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, last_use = carry
        batch = draw_batch(key, source, order[step], step, model, config)
        return train_step(
            *(state, batch, model, optimizer, config, last_use, layout, source.num_items),
            read=read(state.params),
            features=source.features,
        )

    return jax.lax.fori_loop(start, stop, one, (state, last_use))[0]


@functools.partial(
    jax.pmap,
    axis_name=REPLICATED.batch[0],
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
    return _steps(state, source, order, key, start, stop, model, optimizer, config, REPLICATED)


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "config", "layout", "mesh"),
    donate_argnames="state",
)
def train_steps_on_mesh(
    state: TrainState,
    source: Source,
    order: Int[Array, "devices steps b"],
    key: Key[Array, ""],
    start: Int[Array, ""] | int,
    stop: Int[Array, ""] | int,
    model: Relation,
    optimizer: optax.GradientTransformation,
    config: Config,
    layout: Layout,
    mesh: Mesh,
) -> TrainState:
    """`train_steps` over a mesh of devices of all processes, whose tables may be cut.

    Args:
      state: spread as `specs` says.
      source: with a leading axis of devices where users are cut.
    """
    specs = state_specs(state, optimizer, layout)

    def of_device(state: Any, source: Any, order: Any, key: Any, start: Any, stop: Any) -> Any:
        source = own_part(source, layout)
        return _steps(state, source, order[0], key, start, stop, model, optimizer, config, layout)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(specs, spec(layout.user), spec(layout.batch), spec(()), spec(()), spec(())),
        out_specs=specs,
        check_vma=False,
    )(state, source, order, key, start, stop)


def own_part(source: Source, layout: Layout) -> Source:
    """On a device: its source, out of what `train_steps_on_mesh` was given."""
    return jax.tree.map(lambda x: x[0], source) if layout.user else source


def state_specs(state: TrainState, optimizer: optax.GradientTransformation, layout: Layout) -> Any:
    """A `PartitionSpec` for every array of a state, in the same tree."""
    of_params = {
        name: jax.tree.map(lambda _, name=name: layout.of(name), x)
        for name, x in state.params.items()
    }
    of_optimizer = optax.tree_utils.tree_map_params(
        optimizer,
        lambda x, spec: x if isinstance(x, optax.MaskedNode) else spec,
        state.opt_state,
        of_params,
        transform_non_params=lambda _: spec(()),
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    others = dict.fromkeys(("step", "loss_sum", "triplets"), spec(()))
    return state.replace(params=of_params, opt_state=of_optimizer, **others)


@functools.partial(jax.jit, static_argnames=("model", "config", "layout", "mesh"))
def sum_of_loss(
    params: Params,
    source: Source,
    order: Int[Array, "devices steps b"],
    key: Key[Array, ""],
    model: Relation,
    config: Config,
    layout: Layout,
    mesh: Mesh,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the loss over an epoch's batches, and how many terms it is the weighted sum of."""
    specs = {
        name: jax.tree.map(lambda _, name=name: layout.of(name), x) for name, x in params.items()
    }

    def of_device(params: Any, source: Any, order: Any, key: Any) -> Any:
        source, order = own_part(source, layout), order[0]
        read = reader(model, source)(params) or params

        def add(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            # A single pool: which step has which rows goes by the number of devices.
            batch = draw_batch(key, source, order[step], 0, model, config)
            fetched = read
            if layout.item:
                size = len(params["item"]) * jax.lax.axis_size(layout.item)
                item_rows, batch = ItemRows.of(batch, size, layout.item)
                fetched = params | {"item": item_rows.fetch(params["item"])}
            part = objective.loss_of_batch(model, config.loss, source.num_items, fetched, batch)
            return sums[0] + part[0], sums[1] + part[1]

        sums = jax.lax.fori_loop(0, len(order), add, (jnp.zeros(()), jnp.zeros(())))
        return jax.lax.psum(sums, layout.batch)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(specs, spec(layout.user), spec(layout.batch), spec(())),
        out_specs=(spec(()), spec(())),
        check_vma=False,
    )(params, source, order, key)

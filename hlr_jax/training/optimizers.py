"""Optax optimizers and schedules by name, and updates of only the rows that a batch uses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from hlr_jax.config import OptimizerConfig, TrainingConfig
from hlr_jax.parallel.layout import ALONE, Axes, ItemRows, Layout
from hlr_jax.sampling.batches import Batch
from hlr_jax.training.objective import Params, TripletRows, row_ids

# In place of row numbers: all of an array.
_ALL = ...


def schedule(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate as a function of the step: linear warm-up, then the named schedule."""
    rate = config.learning_rate
    warmup = round(config.warmup_epochs * steps_per_epoch)
    after: optax.Schedule
    if config.schedule == "exponential":
        after = optax.exponential_decay(rate, steps_per_epoch, config.decay_rate, staircase=True)
    elif config.schedule == "cosine":
        steps = (config.schedule_epochs or epochs) * steps_per_epoch
        after = optax.cosine_decay_schedule(rate, max(steps - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def build(
    config: OptimizerConfig,
    training: TrainingConfig,
    steps_per_epoch: int,
    layout: Layout = ALONE,
) -> optax.GradientTransformation:
    """The optimizer for parameters `{"user": ..., "item": ..., "relation": ...}`.

    Frozen tables get no update and no optimizer state.

    Args:
      layout: how the tables are spread over devices.
    """
    rate = schedule(config, steps_per_epoch, training.epochs)
    if config.name == "adam":
        optimizer = optax.adam(rate)
    elif config.name == "adamw":
        optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
    elif config.name == "adagrad":
        optimizer = optax.adagrad(rate)
    else:
        optimizer = optax.sgd(rate)
    if config.gradient_clip:
        optimizer = optax.chain(_clip_by_norm(config.gradient_clip, layout), optimizer)
    frozen = {"user": training.freeze_user, "item": training.freeze_item, "relation": False}
    if not any(frozen.values()):
        return optimizer
    labels = {name: "frozen" if is_frozen else "trained" for name, is_frozen in frozen.items()}
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def _clip_by_norm(most: float, layout: Layout) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` of a gradient of which devices have different rows."""
    axes = {"user": layout.user, "item": layout.item}

    def clip(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, Any]:
        def square(name: str) -> Array:
            total = optax.tree.norm(updates[name], squared=True)
            return jax.lax.psum(total, axes[name]) if axes.get(name) else total

        norm = jnp.sqrt(sum(map(square, updates), jnp.zeros(())))
        scale = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda x: x * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), clip)


class Touched(NamedTuple):
    """The rows of the tables that a batch uses.

    Attributes:
      places: for each use of a row, its place in the gradient.
      rows: of each place in the gradient, the row of the table it is for; past the table's end
        where there is none. `...` where gradient and array are alike. Shaped as parameters.
      item_places: where item rows are cut, `places` leads to the item rows that a device has
        fetched, and this from those of all devices to the gradient.
    """

    places: TripletRows
    rows: Any
    item_places: Int[Array, "n"] | None = None

    def zeros(self, params: Params) -> Params:
        """A gradient of nothing, shaped as the rows that a device reads."""

        def zeros(x: Array, rows: Any) -> Array:
            return jnp.zeros_like(x) if rows is _ALL else jnp.zeros((len(rows), *x.shape[1:]))

        read = self.rows if self.item_places is None else self.rows | {"item": _ALL}
        return jax.tree.map(zeros, params, read)

    def apply(
        self,
        change: Callable[[Params, optax.OptState], tuple[Params, optax.OptState]],
        optimizer: optax.GradientTransformation,
        params: Params,
        opt_state: optax.OptState,
    ) -> tuple[Params, optax.OptState]:
        """Parameters and optimizer state with these rows of them changed."""

        def read(x: Array, rows: Any) -> Array:
            return x if rows is _ALL else x.at[rows].get(mode="clip")

        def write(x: Array, new: Array, rows: Any) -> Array:
            return new if rows is _ALL else x.at[rows].set(new, mode="drop")

        # A frozen table has no state: a masked node stands in its place.
        state_rows = optax.tree_utils.tree_map_params(
            optimizer,
            lambda x, rows: x if isinstance(x, optax.MaskedNode) else rows,
            opt_state,
            self.rows,
            transform_non_params=lambda _: _ALL,
            is_leaf=lambda x: isinstance(x, optax.MaskedNode),
        )
        whole, rows = (params, opt_state), (self.rows, state_rows)
        return jax.tree.map(write, whole, change(*jax.tree.map(read, whole, rows)), rows)


def all_rows(
    params: Params, batch: Batch, layout: Layout = ALONE, item_rows: ItemRows | None = None
) -> Touched:
    """Every row counts as used: the gradient is shaped as the parameters are."""
    item_places = item_rows and item_rows.places(len(params["item"]), layout.item)
    return Touched(row_ids(batch), jax.tree.map(lambda _: _ALL, params), item_places)


class LastUse(NamedTuple):
    """Scratch memory to find the distinct rows of a batch without sorting them.

    Attributes:
      user: `[U]`; at the rows in use, the last position in the batch that uses it.
      item: `[I]`.
    """

    user: Int[Array, "u"]
    item: Int[Array, "i"]

    @classmethod
    def of(cls, params: Params) -> "LastUse":
        return cls(*(jnp.zeros(len(params[name]), jnp.int32) for name in cls._fields))

    def touched(
        self,
        params: Params,
        batch: Batch,
        layout: Layout = ALONE,
        item_rows: ItemRows | None = None,
    ) -> tuple[Touched, "LastUse"]:
        """The rows used by a batch, padding and empty places of histories left out.

        Args:
          layout: how tables and the parts of a batch are spread; the rows are those that all
            parts use and this device has.
          item_rows: what the batch's items stand for, where item rows are cut.
        """
        counts = batch.weight > 0
        users = jnp.where(counts, batch.users, len(self.user))
        last_user, user_rows, user_places = _distinct(
            self.user, users, () if layout.user else layout.batch
        )
        rows = {"user": user_rows, "relation": jax.tree.map(lambda _: _ALL, params["relation"])}
        if item_rows is not None:
            used = item_rows.places(len(self.item), layout.batch)
            last_item, rows["item"], item_places = _distinct(self.item, used, ())
            places = row_ids(batch)._replace(user=user_places)
            return Touched(places, rows, item_places), LastUse(last_user, last_item)

        uses, counts = batch.items, jnp.broadcast_to(counts[:, None], batch.items.shape)
        if batch.history is not None:
            uses = jnp.concatenate([uses, batch.history.items], axis=1)
            counts = jnp.concatenate([counts, batch.history.mask & counts[:, :1]], axis=1)
        items = jnp.where(counts, uses, len(self.item))
        flat = items.reshape(-1)
        if batch.pool is not None:
            flat = jnp.concatenate([flat, batch.pool])
        last_item, rows["item"], item_places = _distinct(self.item, flat, layout.batch)
        pool = None if batch.pool is None else item_places[items.size :]
        item_places = item_places[: items.size].reshape(items.shape)
        targets = batch.items.shape[1]
        history = None if batch.history is None else item_places[:, targets:]
        places = TripletRows(user_places, item_places[:, :targets], history, pool)
        return Touched(places, rows), LastUse(last_user, last_item)


def _distinct(
    last: Int[Array, "rows"], ids: Int[Array, "n"], axes: Axes
) -> tuple[Int[Array, "rows"], Int[Array, "m"], Int[Array, "n"]]:
    """Distinct `ids` of all devices: scratch, the row of each place, the place of each id.

    An id past the end counts for nothing. Time and memory go by the number of ids, not of rows.
    """
    every = jax.lax.all_gather(ids, axes, tiled=True) if axes else ids
    if len(last) <= len(every):
        # Fewer rows than uses: each row has its own place.
        used = jnp.zeros(len(last), bool).at[every].set(True, mode="drop")
        return last, jnp.where(used, jnp.arange(len(last)), len(last)), ids
    position = jnp.arange(len(every), dtype=jnp.int32)
    # What earlier steps left behind is overwritten first. The largest position wins on every
    # device, whatever the order of writing.
    last = last.at[every].set(-1, mode="drop").at[every].max(position, mode="drop")
    place = jnp.where(every < len(last), last.at[every].get(mode="clip"), len(every))
    rows = jnp.where(place == position, every, len(last))
    if axes:
        place = jax.lax.dynamic_slice_in_dim(place, jax.lax.axis_index(axes) * len(ids), len(ids))
    return last, rows, place

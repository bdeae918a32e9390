"""Optax optimizers and schedules by name, and updates of only the rows that a batch uses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from hlr_jax.config import OptimizerConfig, TrainingConfig
from hlr_jax.objective import Params, TripletRows, row_ids
from hlr_jax.sampling import Batch

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
        after = optax.cosine_decay_schedule(rate, max(epochs * steps_per_epoch - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def build(
    config: OptimizerConfig, training: TrainingConfig, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer for parameters `{"user": ..., "item": ..., "relation": ...}`.

    Frozen tables get no update and no optimizer state.
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
        optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)
    frozen = {"user": training.freeze_user, "item": training.freeze_item, "relation": False}
    if not any(frozen.values()):
        return optimizer
    labels = {name: "frozen" if is_frozen else "trained" for name, is_frozen in frozen.items()}
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


class Touched(NamedTuple):
    """The rows of the tables that a batch uses.

    Attributes:
      places: for each use of a row, its place in the gradient.
      rows: of each place in the gradient, the row of the table it is for; past the table's end
        where there is none. `...` where gradient and array are alike. Shaped as parameters.
    """

    places: TripletRows
    rows: Any

    def zeros(self, params: Params) -> Params:
        """A gradient of nothing."""

        def zeros(x: Array, rows: Any) -> Array:
            return jnp.zeros_like(x) if rows is _ALL else jnp.zeros((len(rows), *x.shape[1:]))

        return jax.tree.map(zeros, params, self.rows)

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


def all_rows(params: Params, ids: TripletRows) -> Touched:
    """Every row counts as used: the gradient is shaped as the parameters are."""
    return Touched(ids, jax.tree.map(lambda _: _ALL, params))


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
        self, params: Params, batch: Batch, axis: str | None = None
    ) -> tuple[Touched, "LastUse"]:
        """The rows used by a batch, padding and empty places of histories left out.

        Args:
          axis: over which parts of the batch are spread; the rows are those of all parts.
        """
        ids, counts = row_ids(batch), batch.weight > 0
        users = jnp.where(counts, ids.user, len(self.user))
        last_user, user_rows, user_places = _distinct(self.user, users, axis)

        uses, counts = ids.items, jnp.broadcast_to(counts[:, None], ids.items.shape)
        if batch.history is not None:
            uses = jnp.concatenate([uses, batch.history.items], axis=1)
            counts = jnp.concatenate([counts, batch.history.mask & counts[:, :1]], axis=1)
        items = jnp.where(counts, uses, len(self.item))
        last_item, item_rows, item_places = _distinct(self.item, items.reshape(-1), axis)
        item_places = item_places.reshape(items.shape)

        targets = ids.items.shape[1]
        history = None if batch.history is None else item_places[:, targets:]
        places = TripletRows(user_places, item_places[:, :targets], history)
        relation = jax.tree.map(lambda _: _ALL, params["relation"])
        rows = {"user": user_rows, "item": item_rows, "relation": relation}
        return Touched(places, rows), LastUse(last_user, last_item)


def _distinct(
    last: Int[Array, "rows"], ids: Int[Array, "n"], axis: str | None
) -> tuple[Int[Array, "rows"], Int[Array, "m"], Int[Array, "n"]]:
    """Distinct `ids` of all devices: scratch, the row of each place, the place of each id.

    An id past the end counts for nothing. Time and memory go by the number of ids, not of rows.
    """
    every = ids if axis is None else jax.lax.all_gather(ids, axis, tiled=True)
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
    if axis is not None:
        place = jax.lax.dynamic_slice_in_dim(place, jax.lax.axis_index(axis) * len(ids), len(ids))
    return last, rows, place

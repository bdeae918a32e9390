"""Which rows a step updates, and how devices exchange their gradients.

`DenseExchange` updates every row of the tables, `SparseExchange` those that the batch uses. Both
work with tables that are replicated or sharded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from hlr_jax.parallel.item_rows import ItemRows
from hlr_jax.parallel.layout import ALONE, Axes, Layout, psum
from hlr_jax.training.optimizers import of_state
from hlr_jax.types import Batch, Params, RowIds, split_items, used_items

# In place of row numbers: all of an array.
ALL = ...


class ReplicatedItems(NamedTuple):
    """Every device has all item rows."""

    def fetch(self, table: Float[Array, "i d"]) -> Float[Array, "i d"]:
        """Return the rows that items of the batch are numbered by: all."""
        return table


class ShardedItems(NamedTuple):
    """Item rows are sharded: a device fetches what its part of the batch uses.

    Attributes:
      rows: that it fetches.
      places: of the rows that all devices along `axes` fetched, in the gradient of this device's
        block.
      size: rows of that gradient.
      axes: along which gradients are gathered.
    """

    rows: ItemRows
    places: Int[Array, "n"]
    size: int
    axes: Axes

    def fetch(self, table: Float[Array, "i d"]) -> Float[Array, "m d"]:
        """Fetch the rows that items of the batch are numbered by: those it uses."""
        return self.rows.fetch(table)

    def collect(self, gradient: Float[Array, "m d"], layout: Layout) -> Float[Array, "n d"]:
        """Bring every row's gradient to the block that has the row."""
        parts = jax.lax.all_gather(gradient, self.axes, tiled=True)
        zeros = jnp.zeros((self.size, parts.shape[1]))
        summed = zeros.at[self.places].add(parts, mode="drop")
        return psum(summed, tuple(a for a in layout.batch if a not in self.axes))


class Plan(NamedTuple):
    """The rows that a step reads and changes.

    Attributes:
      batch: with items numbered as the fetched rows are.
      places: for each use of a row, its place in the gradient.
      rows: of each place in the gradient, the row of the table it is for; past the table's end
        where there is none. `ALL` where gradient and array are alike. Shaped as parameters.
      items: how item rows are fetched.
      layout: how tables and batches are spread over devices.
    """

    batch: Batch
    places: RowIds
    rows: Any
    items: ReplicatedItems | ShardedItems
    layout: Layout

    def fetched(self, params: Params) -> Params:
        """Fetch the parameters that the batch's rows are numbered by."""
        return params | {"item": self.items.fetch(params["item"])}

    def zeros(self, params: Params) -> Params:
        """Make a gradient of zeros, shaped as the rows of these fetched parameters."""

        def zeros(x: Array, rows: Any) -> Array:
            return jnp.zeros_like(x) if rows is ALL else jnp.zeros((len(rows), *x.shape[1:]))

        is_fetched = isinstance(self.items, ShardedItems)
        return jax.tree.map(zeros, params, self.rows | {"item": ALL} if is_fetched else self.rows)

    def reduce(self, gradient: Params, sums: Any) -> tuple[Params, Any]:
        """Sum the parts of all devices: the gradient of the rows that this device has, and sums."""
        # Nobody else has a part of the gradient of rows that are sharded along all axes.
        own = {"user": gradient["user"]} if self.layout.user else {}
        if isinstance(self.items, ShardedItems):
            own["item"] = self.items.collect(gradient["item"], self.layout)
        shared = {name: x for name, x in gradient.items() if name not in own}
        shared, sums = psum((shared, sums), self.layout.batch)
        return own | shared, sums

    def update(
        self,
        change: Callable[[Params, optax.OptState], tuple[Params, optax.OptState]],
        optimizer: optax.GradientTransformation,
        params: Params,
        opt_state: optax.OptState,
    ) -> tuple[Params, optax.OptState]:
        """Change these rows of parameters and optimizer state."""

        def read(x: Array, rows: Any) -> Array:
            return x if rows is ALL else x.at[rows].get(mode="clip")

        def write(x: Array, new: Array, rows: Any) -> Array:
            return new if rows is ALL else x.at[rows].set(new, mode="drop")

        whole = (params, opt_state)
        rows = (self.rows, of_state(optimizer, opt_state, self.rows, ALL))
        return jax.tree.map(write, whole, change(*jax.tree.map(read, whole, rows)), rows)


class DenseExchange(struct.PyTreeNode):
    """Updates every row: the gradient is shaped as the parameters are."""

    layout: Layout = struct.field(pytree_node=False, default=ALONE)

    def plan(self, params: Params, batch: Batch) -> tuple[Plan, "DenseExchange"]:
        """Plan what a step reads and changes; also return the exchange for the next step."""
        layout, size = self.layout, len(params["item"])
        rows = jax.tree.map(lambda _: ALL, params)
        if not layout.item:
            return Plan(batch, batch.row_ids(), rows, ReplicatedItems(), layout), self
        used, batch = _used_rows(params, batch, layout)
        items = ShardedItems(used, used.places(size, layout.item), size, layout.item)
        return Plan(batch, batch.row_ids(), rows, items, layout), self


class SparseExchange(struct.PyTreeNode):
    """Updates the rows that a batch uses, padding and empty places of histories left out.

    The scratch memory finds distinct rows without sorting them.

    Attributes:
      user: `[U]`; at the rows in use, the last position in the batch that uses it.
      item: `[I]`.
    """

    user: Int[Array, "u"]
    item: Int[Array, "i"]
    layout: Layout = struct.field(pytree_node=False, default=ALONE)

    @classmethod
    def of(cls, params: Params, layout: Layout = ALONE) -> "SparseExchange":
        """Make the scratch memory, before the first step."""
        user, item = (jnp.zeros(len(params[name]), jnp.int32) for name in ("user", "item"))
        return cls(user=user, item=item, layout=layout)

    def plan(self, params: Params, batch: Batch) -> tuple[Plan, "SparseExchange"]:
        """Plan what a step reads and changes; also return the exchange for the next step."""
        layout = self.layout
        users = jnp.where(batch.weight > 0, batch.users, len(self.user))
        user_axes = () if layout.user else layout.batch
        last_user, user_rows, user_places = _distinct(self.user, users, user_axes)
        rows = {"user": user_rows, "relation": jax.tree.map(lambda _: ALL, params["relation"])}
        if layout.item:
            used, batch = _used_rows(params, batch, layout)
            ids = used.places(len(self.item), layout.batch)
            last_item, rows["item"], places = _distinct(self.item, ids, ())
            items = ShardedItems(used, places, len(rows["item"]), layout.batch)
            plan = Plan(batch, batch.row_ids()._replace(user=user_places), rows, items, layout)
        else:
            ids = used_items(batch, len(self.item))
            last_item, rows["item"], places = _distinct(self.item, ids, layout.batch)
            own = split_items(batch.row_ids(), places)._replace(user=user_places)
            plan = Plan(batch, own, rows, ReplicatedItems(), layout)
        return plan, self.replace(user=last_user, item=last_item)


Exchange = DenseExchange | SparseExchange


def fetch_for(params: Params, batch: Batch, layout: Layout) -> tuple[Params, Batch]:
    """Fetch the rows that a batch reads, and number the batch by them; for losses alone."""
    if not layout.item:
        return params, batch
    used, batch = _used_rows(params, batch, layout)
    return params | {"item": used.fetch(params["item"])}, batch


def _used_rows(params: Params, batch: Batch, layout: Layout) -> tuple[ItemRows, Batch]:
    num_rows = len(params["item"]) * jax.lax.axis_size(layout.item)
    return ItemRows.of(batch, num_rows, layout.item)


def _distinct(
    last: Int[Array, "rows"], ids: Int[Array, "n"], axes: Axes
) -> tuple[Int[Array, "rows"], Int[Array, "m"], Int[Array, "n"]]:
    """Find the distinct `ids` of all devices.

    Returns scratch memory, the row of each place, and the place of each id.

    An id past the end does not count. Time and memory grow with the number of ids, not of rows.
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

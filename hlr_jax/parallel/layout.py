"""Which rows a device has, and how devices exchange rows within a step.

Tables are whole on every device, or cut into blocks of consecutive rows along axes of a mesh of
devices. All here runs on the device, inside `pmap` or `shard_map`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.sampling.batches import Batch

Axes = tuple[str, ...]


class Layout(NamedTuple):
    """The axes of a mesh of devices, by what is spread along them.

    Attributes:
      batch: all axes; every device has its own part of a step's batch.
      user: along which users are cut, with their rows, optimizer state and interactions.
      item: along which item rows are cut, with their optimizer state.
    """

    batch: Axes = ()
    user: Axes = ()
    item: Axes = ()

    def of(self, table: str) -> PartitionSpec:
        """How `user`, `item`, or anything else is spread."""
        return spec({"user": self.user, "item": self.item}.get(table, ()))


def spec(axes: Axes) -> PartitionSpec:
    """The leading axis of an array spread along axes of the mesh."""
    return PartitionSpec(axes) if axes else PartitionSpec()


# One device, and several of which each has everything.
ALONE = Layout()
REPLICATED = Layout(batch=("devices",))
# Of a mesh with axes MESH: everything everywhere; users cut; users and items cut. Only where items
# are cut is the axis rows longer than 1.
MESH = ("data", "rows")
WHOLE = Layout(batch=("data",))
USERS_CUT = Layout(batch=("data",), user=("data",))
BOTH_CUT = Layout(batch=MESH, user=MESH, item=("rows",))


def own_places(ids: Int[Array, "n"], size: int, axes: Axes) -> Int[Array, "n"]:
    """Where these rows are in this device's block of a table; `size` for rows of other blocks.

    Args:
      ids: rows of the whole table.
      size: of a block.
      axes: along which the table is cut; () for one that is whole.
    """
    place = ids - (jax.lax.axis_index(axes) * size if axes else 0)
    return jnp.where((place >= 0) & (place < size), place, size)


def own_rows(table: Float[Array, "n d"], ids: Int[Array, "m"], axes: Axes) -> Float[Array, "m d"]:
    """Rows of the whole table as far as this device's block has them, else zeros."""
    places = own_places(ids, len(table), axes)
    return jnp.where((places < len(table))[:, None], table.at[places].get(mode="clip"), 0)


class ItemRows(NamedTuple):
    """The distinct item rows that this device's part of a batch uses, where item rows are cut.

    Only these rows are exchanged: each device tells along `axes` which it needs and gets them
    summed up out of one block that has them and zeros of the others, which needs no room for the
    worst case of all rows being in one block.

    Attributes:
      ids: `[m]` rows of the whole table; past its end where there are fewer.
      axes: along which the table is cut.
    """

    ids: Int[Array, "m"]
    axes: Axes

    @classmethod
    def of(cls, batch: Batch, num_rows: int, axes: Axes) -> tuple["ItemRows", Batch]:
        """The rows, and the batch with items numbered by their place among them.

        Args:
          num_rows: of the whole table.
        """
        uses = batch.items
        counts: Bool[Array, "b n"] = jnp.broadcast_to(batch.weight[:, None] > 0, uses.shape)
        if batch.history is not None:
            uses = jnp.concatenate([uses, batch.history.items], axis=1)
            counts = jnp.concatenate([counts, batch.history.mask & counts[:, :1]], axis=1)
        # What does not count is past the end, and is no row of anybody's.
        flat = jnp.where(counts, uses, num_rows).reshape(-1)
        if batch.pool is not None:
            flat = jnp.concatenate([flat, batch.pool])
        ids, places = jnp.unique(
            flat, size=min(flat.size, num_rows + 1), fill_value=num_rows, return_inverse=True
        )
        places = places.astype(jnp.int32)
        pool = None if batch.pool is None else places[uses.size :]
        places = places[: uses.size].reshape(uses.shape)
        targets = batch.items.shape[1]
        history = batch.history and batch.history._replace(items=places[:, targets:])
        batch = batch._replace(items=places[:, :targets], history=history, pool=pool)
        return cls(ids, axes), batch

    def fetch(self, table: Float[Array, "n d"]) -> Float[Array, "m d"]:
        """The rows, from the blocks that have them."""
        everyone = jax.lax.all_gather(self.ids, self.axes, tiled=True)
        rows = own_rows(table, everyone, self.axes)
        return jax.lax.psum_scatter(rows, self.axes, tiled=True)

    def places(self, size: int, axes: Axes) -> Int[Array, "n"]:
        """Where the rows that the devices along `axes` use are in this device's block.

        Args:
          size: of the block; also the place of rows of other blocks.
        """
        everyone = jax.lax.all_gather(self.ids, axes, tiled=True)
        return own_places(everyone, size, self.axes)

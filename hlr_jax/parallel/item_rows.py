"""Exchange rows of a sharded item table between devices, within a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hlr_jax.parallel.layout import Axes, own_places, own_rows
from hlr_jax.types import Batch, split_items, used_items


class ItemRows(NamedTuple):
    """The distinct item rows that this device's part of a batch uses, where items are sharded.

    Only these rows are exchanged: each device sends along `axes` the ids that it needs, and gets
    the rows summed up out of one block that has them and zeros of the others. That needs no room
    for the worst case of all rows being in one block.

    Attributes:
      ids: `[m]` rows of the whole table; past its end where there are fewer.
      axes: along which the table is sharded.
    """

    ids: Int[Array, "m"]
    axes: Axes

    @classmethod
    def of(cls, batch: Batch, num_rows: int, axes: Axes) -> tuple["ItemRows", Batch]:
        """Find the rows, and number the batch's items by their place among them.

        Args:
          num_rows: of the whole table.
        """
        uses = used_items(batch, num_rows)
        ids, places = jnp.unique(
            uses, size=min(uses.size, num_rows + 1), fill_value=num_rows, return_inverse=True
        )
        numbered = split_items(batch.row_ids(), places.astype(jnp.int32))
        return cls(ids, axes), batch.with_items(numbered)

    def fetch(self, table: Float[Array, "n d"]) -> Float[Array, "m d"]:
        """Get the rows from the blocks that have them."""
        everyone = jax.lax.all_gather(self.ids, self.axes, tiled=True)
        rows = own_rows(table, everyone, self.axes)
        return jax.lax.psum_scatter(rows, self.axes, tiled=True)

    def places(self, size: int, axes: Axes) -> Int[Array, "n"]:
        """Find where the rows that the devices along `axes` use are in this device's block.

        Args:
          size: of the block; also the place of rows of other blocks.
        """
        everyone = jax.lax.all_gather(self.ids, axes, tiled=True)
        return own_places(everyone, size, self.axes)

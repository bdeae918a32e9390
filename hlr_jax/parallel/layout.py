"""Which rows of the tables a device has.

Tables are replicated on every device, or sharded into blocks of consecutive rows along axes of a
mesh of devices. `own_places` and what follows runs on the device, inside `pmap` or `shard_map`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from hlr_jax.types import Params

Axes = tuple[str, ...]


class Layout(NamedTuple):
    """The axes of a mesh of devices, by what is spread along them.

    Attributes:
      batch: all axes; every device has its own part of a step's batch.
      user: along which users are sharded, with their rows, optimizer state and interactions.
      item: along which item rows are sharded, with their optimizer state.
    """

    batch: Axes = ()
    user: Axes = ()
    item: Axes = ()

    def of(self, table: str) -> PartitionSpec:
        """Specify how `user`, `item`, or anything else is spread."""
        return spec({"user": self.user, "item": self.item}.get(table, ()))

    def of_params(self, params: Params) -> Params:
        """Specify how every array of the parameters is spread, in the same tree."""
        return {
            name: jax.tree.map(lambda _, name=name: self.of(name), x) for name, x in params.items()
        }


def spec(axes: Axes) -> PartitionSpec:
    """Specify an array whose leading axis is spread along axes of the mesh."""
    return PartitionSpec(axes) if axes else PartitionSpec()


# One device; several, each with everything; users sharded; users and items sharded. Meshes have the
# axes MESH, of which `rows` is longer than 1 only where items are sharded.
MESH = ("data", "rows")
ALONE = Layout()
REPLICATED = Layout(batch=("data",))
USERS_SHARDED = Layout(batch=("data",), user=("data",))
BOTH_SHARDED = Layout(batch=MESH, user=MESH, item=("rows",))


def own_places(ids: Int[Array, "n"], size: int, axes: Axes) -> Int[Array, "n"]:
    """Find these rows in this device's block of a table; `size` stands for rows of others.

    Args:
      ids: rows of the whole table.
      size: of a block.
      axes: along which the table is sharded; () for one that is replicated.
    """
    place = ids - (jax.lax.axis_index(axes) * size if axes else 0)
    return jnp.where((place >= 0) & (place < size), place, size)


def own_rows(table: Float[Array, "n d"], ids: Int[Array, "m"], axes: Axes) -> Float[Array, "m d"]:
    """Gather rows of the whole table as far as this device's block has them, else zeros."""
    places = own_places(ids, len(table), axes)
    return jnp.where((places < len(table))[:, None], table.at[places].get(mode="clip"), 0)


def on_each_device(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Let every device of a mesh run a function on its parts of the arguments, by `shard_map`.

    JAX's check of what varies between devices is off. With it, each loop that starts from a
    constant, in samplers and in relations too, has to name the axes of the mesh that its values
    will vary along, though the same code runs without a mesh; gradients of replicated parameters
    are summed over devices within each slice of a batch; and what is gathered from all devices
    counts as different on each, so that a sparse update of replicated tables is refused.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def psum(tree: Any, axes: Axes) -> Any:
    """Sum over the devices along these axes."""
    # XLA would copy what it sums over a single device.
    return jax.lax.psum(tree, axes) if axes and jax.lax.axis_size(axes) > 1 else tree

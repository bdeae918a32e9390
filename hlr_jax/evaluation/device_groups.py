"""Divide the devices of one process into groups, each of which ranks for its own users."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.parallel.layout import Axes, Layout, spec
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.sampling.stacking import equalize, sizes
from hlr_jax.types import Params


@dataclasses.dataclass(frozen=True)
class DeviceGroups:
    """Groups of this process's devices, each of which has all items.

    Where item rows are replicated, every device is a group; where they are sharded, the devices
    that hold the shards of one copy are.

    Attributes:
      placement: of the parameters.
      mesh: the devices of this process.
    """

    placement: Placement
    mesh: Mesh

    @classmethod
    def of(cls, placement: Placement) -> "DeviceGroups":
        """Group the devices that this process has in a placement."""
        return cls(placement, placement.own_mesh)

    @property
    def layout(self) -> Layout:
        return self.placement.layout

    @property
    def axes(self) -> Axes:
        """The axes of the mesh along which groups differ."""
        return group_axes(self.layout)

    @property
    def item_shards(self) -> tuple[int, int]:
        """The number of shards of the item rows, and the rows of a shard."""
        shards = self.mesh.shape["rows"] if self.layout.item else 1
        return shards, self.placement.num_rows["item"] // shards

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.mesh.size // self.item_shards[0]

    @property
    def _group_size(self) -> int:
        """The user rows of a group, where users are sharded."""
        return self.placement.block * self.item_shards[0]

    def divide(self, users: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "_"]]:
        """Choose the places of `users` that each group ranks for: equal shares, or its own."""
        if not self.layout.user:
            return np.array_split(np.arange(len(users)), self.count)
        return [np.flatnonzero(users // self._group_size == g) for g in range(self.count)]

    def rows(self, users: Int[np.ndarray, "g n"]) -> Int[np.ndarray, "gn"]:
        """Find the users' rows in the shards of their group."""
        rows = users.astype(np.int32)
        if self.layout.user:
            firsts = np.arange(len(users), dtype=np.int32)[:, None] * self._group_size
            rows = np.maximum(rows - firsts, 0).astype(np.int32)
        return rows.ravel()

    def params(self, params: Params) -> Params:
        """View the parts of placed parameters that this process has, without a copy."""

        def own(name: str, x: Array) -> Array:
            rows = x.shape[0] if x.ndim else 0
            if name == "user" and self.layout.user:
                rows = self.placement.block * self.mesh.size
            shape = (rows, *x.shape[1:]) if x.ndim else ()
            sharding = NamedSharding(self.mesh, self.layout.of(name))
            if not x.size:
                # What a program returns without a number, JAX keeps whole on every device.
                return jax.device_put(np.zeros(shape, x.dtype), sharding)
            by_device = {shard.device: shard.data for shard in x.addressable_shards}
            return jax.make_array_from_single_device_arrays(
                shape, sharding, [by_device[device] for device in self.mesh.devices.flat]
            )

        return {
            name: jax.tree.map(lambda x, name=name: own(name, x), tree)
            for name, tree in params.items()
        }

    def interactions(self, interactions: Interactions) -> DeviceInteractions:
        """Put the interactions of this process's users where the users' rows are."""
        if not self.layout.user:
            return self.everywhere(DeviceInteractions.of(interactions))
        block = self.placement.block
        of_devices = [
            DeviceInteractions.of(interactions.part(slice(number * block, (number + 1) * block)))
            for number in range(self.mesh.size)
        ]
        stacked = jax.tree.map(lambda *x: np.stack(x), *equalize(of_devices, sizes(of_devices)))
        return jax.device_put(stacked, NamedSharding(self.mesh, spec(self.layout.batch)))

    def everywhere(self, values: Any) -> Any:
        """Copy values to each of the devices."""
        return jax.device_put(values, NamedSharding(self.mesh, PartitionSpec()))

    def spread(self, values: Any, specs: Any) -> Any:
        """Shard arrays by specifications in the same tree."""
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(self.mesh, spec)), values, specs
        )


def group_axes(layout: Layout) -> Axes:
    """Name the axes of a mesh along which groups differ: all but those of sharded items."""
    return tuple(axis for axis in layout.batch if axis not in layout.item)

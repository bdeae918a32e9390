"""Where the tables and interactions of a run are, on the devices of all processes."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from hlr_jax.config import ShardingConfig
from hlr_jax.errors import InputError
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import devices, processes
from hlr_jax.parallel.layout import BOTH_SHARDED, MESH, REPLICATED, USERS_SHARDED, Layout, spec
from hlr_jax.types import Params

EVERYWHERE = PartitionSpec()
# A number that the usual numbers of devices divide.
PARTS = 64


@dataclasses.dataclass(frozen=True)
class Placement:
    """How a run is spread over devices.

    Users are numbered in parts of equal size; devices take whole parts, in order.

    Attributes:
      mesh: the devices, those of a process one after another.
      layout: what is spread along its axes.
      num_users, num_items: without the rows that fill blocks up.
      parts: of the users.
    """

    mesh: Mesh
    layout: Layout
    num_users: int
    num_items: int
    parts: int = 1

    @classmethod
    def replicated(
        cls, num_devices: int, num_users: int, num_items: int, parts: int = 1
    ) -> "Placement":
        """Put everything on each of the first devices of this process."""
        mesh = Mesh(np.array(jax.local_devices()[:num_devices]), REPLICATED.batch)
        return cls(mesh, REPLICATED, num_users, num_items, parts)

    @classmethod
    def of(
        cls, sharding: ShardingConfig, model: Relation, num_users: int, num_items: int
    ) -> "Placement":
        """Do what a configuration asks for, with the devices there are.

        Raises:
          InputError: the devices cannot be divided so.
        """
        parts = sharding.user_parts or 1
        if not sharding.is_sharded and processes.count() == 1:
            table_bytes = 4 * (model.user_width * num_users + model.dim * num_items)
            count = devices.count_for(model, table_bytes)
            return cls.replicated(count, num_users, num_items, parts)
        shards, local = sharding.item_shards, devices.count()
        if local % shards:
            raise InputError(
                f"config.sharding.item_shards={shards}: a process has {local} devices; use a "
                "number that divides that"
            )
        every = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        if len(every) != local * processes.count():
            raise InputError(
                f"this process has {local} of {len(every)} devices; give each of the "
                f"{processes.count()} processes the same number"
            )
        if sharding.is_sharded:
            parts = sharding.user_parts or -(-len(every) // PARTS) * PARTS
            if parts < len(every):
                raise InputError(
                    f"config.sharding.user_parts={parts}: too few for {len(every)} devices, which "
                    "take whole parts; use a multiple of that, or 0"
                )
        mesh = Mesh(np.array(every).reshape(-1, shards), MESH)
        sharded = BOTH_SHARDED if shards > 1 else USERS_SHARDED
        layout = sharded if sharding.is_sharded else REPLICATED
        return cls(mesh, layout, num_users, num_items, parts)

    @classmethod
    def for_ranking(
        cls, sharding: ShardingConfig, model: Relation, num_users: int, num_items: int
    ) -> "Placement":
        """As `of`, with any number of devices: items get as many blocks as fit them."""
        shards = math.gcd(sharding.item_shards, devices.count())
        sharding = dataclasses.replace(sharding, item_shards=shards)
        return cls.of(sharding, model, num_users, num_items)

    # -----------------------------------------------------------------------------------------
    # Who has which users.

    @property
    def num_devices(self) -> int:
        return int(self.mesh.size)

    @property
    def is_one_process(self) -> bool:
        """Whether everything is replicated over devices of this process, as `pmap` has it."""
        return self.mesh.axis_names == REPLICATED.batch

    @property
    def part_size(self) -> int:
        """Users in a part; the last may have fewer, or none."""
        return -(-self.num_users // self.parts)

    @property
    def part_bounds(self) -> np.ndarray:
        """`[parts + 1]` the first user of each part, and their number."""
        return np.minimum(np.arange(self.parts + 1) * self.part_size, self.num_users)

    @property
    def parts_of_devices(self) -> list[slice]:
        """The parts of each device."""
        each = -(-self.parts // self.num_devices)
        bounds = np.minimum(np.arange(self.num_devices + 1) * each, self.parts).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(bounds)]

    @property
    def block(self) -> int:
        """User rows of a device where users are sharded, some of them unused."""
        return -(-self.parts // self.num_devices) * self.part_size

    def users_of(self, device: int) -> slice:
        """The users whose rows and interactions a device has."""
        if not self.layout.user:
            return slice(0, self.num_users)
        first, stop = device * self.block, (device + 1) * self.block
        return slice(min(first, self.num_users), min(stop, self.num_users))

    @property
    def own_users(self) -> slice:
        """The users whose interactions this process reads: of its devices, or all."""
        own = self.own_devices
        return slice(self.users_of(own[0]).start, self.users_of(own[-1]).stop)

    @property
    def own_devices(self) -> list[int]:
        """The numbers of this process's devices in the mesh."""
        mine = processes.index()
        return [
            i for i, device in enumerate(self.mesh.devices.flat) if device.process_index == mine
        ]

    @property
    def own_mesh(self) -> Mesh:
        """The devices of this process, with the same axes."""
        own = np.array([self.mesh.devices.flat[number] for number in self.own_devices])
        return Mesh(own.reshape(-1, *self.mesh.devices.shape[1:]), self.mesh.axis_names)

    @property
    def used_rows(self) -> dict[str, int]:
        """Rows of each table that stand for something."""
        return {"user": self.num_users, "item": self.num_items}

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows of each table, with those that fill blocks up."""
        blocks = self.mesh.shape["rows"] if self.layout.item else 1
        users = self.block * self.num_devices if self.layout.user else self.num_users
        return {"user": users, "item": -(-self.num_items // blocks) * blocks}

    # -----------------------------------------------------------------------------------------
    # Placing.

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """How an array with this specification is spread over the mesh."""
        return NamedSharding(self.mesh, spec)

    def shapes(self, tree: Any, specs: Any) -> Any:
        """Shapes and types of a tree, with shardings by specifications in the same tree."""
        return jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.sharding(spec)),
            tree,
            specs,
        )

    def params(self, params: Params) -> Params:
        """Place parameters; every process gives the same."""

        def place(name: str, x: Any) -> Array:
            missing = self.num_rows[name] - len(x) if name in self.num_rows else 0
            padded = np.pad(x, ((0, missing), (0, 0))) if missing else x
            return self.put(padded, self.layout.of(name))

        return {
            name: jax.tree.map(lambda x, name=name: place(name, x), tree)
            for name, tree in params.items()
        }

    def put(self, x: Any, spec: PartitionSpec = EVERYWHERE) -> Array:
        """Spread a value that all processes have over the mesh."""
        sharding = self.sharding(spec)
        if processes.count() == 1:
            return jax.device_put(x, sharding)
        if isinstance(x, Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self.put(jax.random.key_data(x))
            return jax.random.wrap_key_data(data)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    def join(self, parts: Sequence[np.ndarray]) -> Array:
        """Make one array of which each device of this process has a part."""
        shape = (self.num_devices, *parts[0].shape)
        sharding = self.sharding(spec(self.layout.batch))
        own = [self.mesh.devices.flat[i] for i in self.own_devices]
        shards = [jax.device_put(x[None], d) for x, d in zip(parts, own, strict=True)]
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    def one_copy(self, params: Params) -> Params:
        """Parameters that are everywhere, on one device."""
        return jax.tree.map(lambda x: x.addressable_shards[0].data, params)

"""Where the tables, interactions and batches of a run are, on the devices of all processes."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from hlr_jax.config import Config
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import devices, layout, processes
from hlr_jax.parallel.layout import BOTH_CUT, MESH, REPLICATED, USERS_CUT, WHOLE, Layout
from hlr_jax.sampling import epoch_order as batching
from hlr_jax.sampling.sources import Rows, Source
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params
from hlr_jax.training.step import TrainState

EVERYWHERE = PartitionSpec()
# A number that the usual numbers of devices divide.
PARTS = 64


class Positives(NamedTuple):
    """Interactions to draw triplets from, or users, where a placement wants them.

    Attributes:
      source: with a leading axis of devices where users are cut.
      bounds: `[parts + 1]` the first row of the source of each part of the users, and their number.
    """

    source: Source
    bounds: Int[np.ndarray, "parts_plus_1"]

    def __len__(self) -> int:
        return int(self.bounds[-1])


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
    def replicated(cls, num_devices: int, num_users: int, num_items: int, parts: int = 1) -> Any:
        """Everything on each of the first devices of this process."""
        mesh = Mesh(jax.local_devices()[:num_devices], REPLICATED.batch)
        return cls(mesh, REPLICATED, num_users, num_items, parts)

    @classmethod
    def of(cls, config: Config, model: Relation, num_users: int, num_items: int) -> "Placement":
        """What a configuration asks for, on the devices there are.

        Raises:
          InputError: the devices cannot be divided so.
        """
        sharding = config.sharding
        parts = sharding.user_parts or 1
        if not sharding.is_sharded and processes.count() == 1:
            table_bytes = 4 * (model.user_width * num_users + model.dim * num_items)
            count = devices.count_for(model, table_bytes)
            return cls.replicated(count, num_users, num_items, parts)
        blocks, local = sharding.item_blocks, devices.count()
        if local % blocks:
            raise InputError(
                f"config.sharding.item_blocks={blocks}: a process has {local} devices; use a "
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
        mesh = Mesh(np.array(every).reshape(-1, blocks), MESH)
        cut = BOTH_CUT if blocks > 1 else USERS_CUT
        return cls(mesh, cut if sharding.is_sharded else WHOLE, num_users, num_items, parts)

    @classmethod
    def for_ranking(
        cls, config: Config, model: Relation, num_users: int, num_items: int
    ) -> "Placement":
        """`of`, on any number of devices: item rows are cut into as many blocks as fit them."""
        blocks = math.gcd(config.sharding.item_blocks, devices.count())
        sharding = dataclasses.replace(config.sharding, item_blocks=blocks)
        return cls.of(dataclasses.replace(config, sharding=sharding), model, num_users, num_items)

    # -----------------------------------------------------------------------------------------
    # Who has which users.

    @property
    def num_devices(self) -> int:
        return int(self.mesh.size)

    @property
    def _part_size(self) -> int:
        """Users in a part; the last may have fewer, or none."""
        return -(-self.num_users // self.parts)

    @property
    def _groups(self) -> list[slice]:
        """The parts of each device."""
        each = -(-self.parts // self.num_devices)
        cuts = np.minimum(np.arange(self.num_devices + 1) * each, self.parts).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    @property
    def block(self) -> int:
        """User rows of a device where users are cut, some of them unused."""
        return -(-self.parts // self.num_devices) * self._part_size

    def users_of(self, device: int) -> slice:
        """The users whose rows and interactions a device has."""
        if not self.layout.user:
            return slice(0, self.num_users)
        first, stop = device * self.block, (device + 1) * self.block
        return slice(min(first, self.num_users), min(stop, self.num_users))

    @property
    def own_users(self) -> slice:
        """The users whose interactions this process reads: of its devices, or all."""
        own = self._own_devices
        return slice(self.users_of(own[0]).start, self.users_of(own[-1]).stop)

    @property
    def _own_devices(self) -> list[int]:
        mine = processes.index()
        return [
            i for i, device in enumerate(self.mesh.devices.flat) if device.process_index == mine
        ]

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

    def params(self, params: Params) -> Params:
        """Parameters placed; every process gives the same."""

        def place(name: str, x: Any) -> Array:
            missing = self.num_rows[name] - len(x) if name in self.num_rows else 0
            padded = np.pad(x, ((0, missing), (0, 0))) if missing else x
            return self._put(padded, self.layout.of(name))

        return {
            name: jax.tree.map(lambda x, name=name: place(name, x), tree)
            for name, tree in params.items()
        }

    def new_params(
        self, key: Key[Array, ""], model: Relation, config: Config, num_features: int = 0
    ) -> Params:
        """`training.init_params`, constrained; each device makes its own rows."""
        rows, data = self.num_rows, np.asarray(jax.random.key_data(key))

        def make() -> Params:
            key = jax.random.wrap_key_data(jnp.asarray(data))
            params = training.init_params(key, model, rows["user"], rows["item"], num_features)
            return training.constrain(params, model, config)

        shardings = jax.tree.map(lambda x: x.sharding, self.param_shapes(model, num_features))
        return jax.jit(make, out_shardings=shardings)()

    def state(self, params: Params, optimizer: optax.GradientTransformation) -> TrainState:
        """The state before the first step, from placed parameters, which are donated.

        So are the arrays they were placed from, where that took no copy.
        """
        shardings = jax.tree.map(lambda x: x.sharding, self.shapes(params, optimizer))
        make = functools.partial(TrainState.of, optimizer=optimizer)
        return jax.jit(make, out_shardings=shardings, donate_argnums=0)(params)

    def shapes(self, params: Params, optimizer: optax.GradientTransformation) -> TrainState:
        """Shapes, types and shardings of a state with parameters like these."""
        shapes = jax.eval_shape(functools.partial(TrainState.of, optimizer=optimizer), params)
        specs = training.state_specs(shapes, optimizer, self.layout)
        return jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._sharding(spec)),
            shapes,
            specs,
        )

    def param_shapes(self, model: Relation, num_features: int = 0) -> Params:
        """Shapes, types and shardings of a model's parameters."""
        sizes = (self.num_rows["user"], self.num_rows["item"], num_features)
        shapes = jax.eval_shape(lambda: training.init_params(jax.random.key(0), model, *sizes))
        return {
            name: jax.tree.map(
                lambda x, name=name: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=self._sharding(self.layout.of(name))
                ),
                tree,
            )
            for name, tree in shapes.items()
        }

    def positives(
        self, rows_before: Int[np.ndarray, "u_plus_1"], source_of: Callable[[slice], Source]
    ) -> Positives:
        """Interactions, or users who have some, where the devices want them.

        Args:
          rows_before: of the source of all, how many are of users before each, and of all.
          source_of: the source of consecutive users, numbered from 0.
        """
        cuts = np.minimum(np.arange(self.parts + 1) * self._part_size, self.num_users)
        bounds = np.asarray(rows_before)[cuts]
        if not self.layout.user:
            source = source_of(slice(0, self.num_users))
            return Positives(jax.tree.map(_once(self._put), source), bounds)
        sources = [source_of(self.users_of(number)) for number in self._own_devices]
        sizes = [int(size) for size in processes.largest(*_sizes(sources))]
        join = _once(lambda *parts: self._join(parts))
        return Positives(jax.tree.map(join, *_equal(sources, sizes)), bounds)

    def _join(self, parts: Sequence[np.ndarray]) -> Array:
        """One array of which each device of this process has a part."""
        shape = (self.num_devices, *parts[0].shape)
        sharding = self._sharding(layout.spec(self.layout.batch))
        own = [self.mesh.devices.flat[i] for i in self._own_devices]
        shards = [jax.device_put(x[None], d) for x, d in zip(parts, own, strict=True)]
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    def _put(self, x: Any, spec: PartitionSpec = EVERYWHERE) -> Array:
        """A value that all processes have, spread over the mesh."""
        sharding = self._sharding(spec)
        if processes.count() == 1:
            return jax.device_put(x, sharding)
        if isinstance(x, Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self._put(jax.random.key_data(x))
            return jax.random.wrap_key_data(data)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    # -----------------------------------------------------------------------------------------
    # Running.

    def order(self, key: Key[Array, ""], positives: Positives, batch_size: int) -> Array:
        """`[devices, steps, b]` an epoch's batches, each device's part where it wants it."""
        bounds = positives.bounds
        if self.layout.user:
            rows = batching.orders_by_part(key, bounds, batch_size, self._groups, self._own_devices)
            return self._join(list(rows))
        if self.parts == 1:
            batches = batching.epoch_order(key, len(positives), batch_size)
        else:
            whole = [slice(0, self.parts)]
            batches = batching.orders_by_part(key, bounds, batch_size, whole)[0]
        return self._cut(batches)

    def _cut(self, batches: Int[np.ndarray, "steps b"]) -> Array:
        """Batches cut between all devices in order."""
        cut = devices.split(batches, self.num_devices)
        return self._join([cut[number] for number in self._own_devices])

    def advance(
        self,
        state: TrainState,
        source: Source,
        order: Array,
        key: Key[Array, ""],
        start: int,
        stop: int,
        model: Relation,
        optimizer: optax.GradientTransformation,
        config: Config,
    ) -> TrainState:
        """The state after steps `start .. stop - 1` of an epoch; the one before is donated."""
        arguments = (state, source, order, key, start, stop, model, optimizer, config)
        if self.layout == REPLICATED:
            return training.train_steps(*arguments)
        return training.train_steps_on_mesh(*arguments, self.layout, self.mesh)

    def mean_loss(
        self,
        params: Params,
        positives: Positives,
        key: Key[Array, ""],
        model: Relation,
        config: Config,
    ) -> float:
        """Mean loss per term over all positives, with negatives drawn by `key`."""
        batch_size = min(config.training.batch_size, len(positives))
        if self.layout.user:
            rows = [
                int(positives.bounds[group.stop] - positives.bounds[group.start])
                for group in self._groups
            ]
            size = -(-batch_size // self.num_devices)
            steps = max(1, -(-max(rows) // size))
            batches = np.full((len(rows), steps * size), -1, np.int32)
            for row, number in zip(batches, rows, strict=True):
                row[:number] = np.arange(number)
            cut = batches.reshape(len(rows), steps, size)
            order = self._join([cut[number] for number in self._own_devices])
        else:
            order = self._cut(batching.in_batches(np.arange(len(positives)), batch_size))
        loss, terms = training.sum_of_loss(
            params, positives.source, order, key, model, config, self.layout, self.mesh
        )
        # None at all where users have seen the whole of a small pool.
        return float(loss) / (float(terms) or 1.0)

    # -----------------------------------------------------------------------------------------
    # What one process has.

    @property
    def _own_mesh(self) -> Mesh:
        own = np.array([self.mesh.devices.flat[number] for number in self._own_devices])
        return Mesh(own.reshape(-1, *self.mesh.devices.shape[1:]), self.mesh.axis_names)

    def one_copy(self, params: Params) -> Params:
        """Parameters that are everywhere, on one device."""
        return jax.tree.map(lambda x: x.addressable_shards[0].data, params)

    def ranker(self) -> "Ranker":
        """The devices of this process, to rank by themselves."""
        return Ranker(self, self._own_mesh)


@dataclasses.dataclass(frozen=True)
class Ranker:
    """The devices of one process, each group of them ranking for users of its own.

    Where item rows are cut, a group is the devices which together have all items.
    """

    placement: Placement
    mesh: Mesh

    @property
    def layout(self) -> Layout:
        return self.placement.layout

    @property
    def item_blocks(self) -> tuple[int, int]:
        """How many blocks item rows are cut into, and the rows of a block."""
        blocks = self.mesh.shape["rows"] if self.layout.item else 1
        return blocks, self.placement.num_rows["item"] // blocks

    @property
    def _num_groups(self) -> int:
        return self.mesh.size // self.item_blocks[0]

    @property
    def _group_size(self) -> int:
        """User rows of a group, where users are cut."""
        return self.placement.block * self.item_blocks[0]

    def groups(self, users: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "m"]]:
        """Which places of `users` each group of devices ranks for: equal shares, or its own."""
        if not self.layout.user:
            return np.array_split(np.arange(len(users)), self._num_groups)
        return [np.flatnonzero(users // self._group_size == g) for g in range(self._num_groups)]

    def rows_and_numbers(
        self, users: Int[np.ndarray, "g n"]
    ) -> tuple[Int[np.ndarray, "gn"], Int[np.ndarray, "gn"]]:
        """Rows of the tables that each group has, and numbers among all users."""
        rows = users.astype(np.int32)
        numbers = rows + np.int32(self.placement.own_users.start)
        if self.layout.user:
            firsts = np.arange(len(users), dtype=np.int32)[:, None] * self._group_size
            rows = np.maximum(rows - firsts, 0).astype(np.int32)
        return rows.ravel(), numbers.ravel()

    def params(self, params: Params) -> Params:
        """Placed parameters as far as this process has them, without a copy."""

        def own(name: str, x: Array) -> Array:
            rows = x.shape[0] if x.ndim else 0
            if name == "user" and self.layout.user:
                rows = self.placement.block * self.mesh.size
            by_device = {shard.device: shard.data for shard in x.addressable_shards}
            return jax.make_array_from_single_device_arrays(
                (rows, *x.shape[1:]) if x.ndim else (),
                NamedSharding(self.mesh, self.layout.of(name)),
                [by_device[device] for device in self.mesh.devices.flat],
            )

        return {
            name: jax.tree.map(lambda x, name=name: own(name, x), tree)
            for name, tree in params.items()
        }

    def rows(self, interactions: Interactions) -> Rows:
        """Interactions of this process's users, where their rows are."""
        if not self.layout.user:
            return self.everywhere(Rows.of(interactions))[0]
        block = self.placement.block
        of_devices = [
            Rows.of(interactions.part(slice(number * block, (number + 1) * block)))
            for number in range(self.mesh.size)
        ]
        stacked = jax.tree.map(lambda *x: np.stack(x), *_equal(of_devices, _sizes(of_devices)))
        return jax.device_put(stacked, NamedSharding(self.mesh, layout.spec(self.layout.batch)))

    def everywhere(self, *values: Any) -> Any:
        """Values on each of the devices."""
        return jax.device_put(values, NamedSharding(self.mesh, PartitionSpec()))

    def spread(self, users: Any) -> Any:
        """Of arrays `rows`, `numbers` and `hidden`, each group's part on its devices."""
        groups = tuple(axis for axis in self.layout.batch if axis not in self.layout.item)
        rows, hidden = PartitionSpec(groups), PartitionSpec(groups, self.layout.item or None)
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(self.mesh, spec)),
            users,
            type(users)(rows, rows, hidden),
        )


def _sizes(trees: Sequence[Any]) -> list[int]:
    """The longest of each array of these trees, then what they say to be their longest rows."""
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    longest = zip(*map(_longest, trees), strict=True)
    return [max(len(x) if x.ndim else 1 for x in xs) for xs in leaves] + [*map(max, longest)]


def _longest(tree: Source | Rows) -> list[int]:
    rows = _rows_of(tree).values() if isinstance(tree, Source) else [tree]
    return [x.longest for x in rows]


def _rows_of(source: Source) -> dict[str, Rows]:
    names = ("history", "seen", "positives")
    return {name: rows for name in names if (rows := getattr(source, name)) is not None}


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same result for the same objects: a source has some arrays twice, devices need not."""
    known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def remembered(*objects: Any) -> Any:
        key = tuple(x if isinstance(x, int) else id(x) for x in objects)
        if key not in known:
            known[key] = (objects, function(*objects))  # which keeps the objects, and their ids
        return known[key][1]

    return remembered


def _equal(trees: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """The same trees with arrays of these sizes."""

    @_once
    def filled(x: Any, size: int) -> np.ndarray:
        # Offsets go on at their last value: users without interactions.
        x, missing = np.asarray(x), max(size, 1) - len(x) if x.ndim else 0
        return np.pad(x, (0, missing), mode="edge" if len(x) else "constant") if missing else x

    def equal(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        tree = jax.tree.unflatten(structure, map(filled, leaves, sizes))
        if isinstance(tree, Rows):
            return tree.replace(longest=sizes[-1])
        rows = _rows_of(tree)
        longest = zip(rows, sizes[-len(rows) :], strict=True)
        return tree.replace(**{name: rows[name].replace(longest=x) for name, x in longest})

    return [equal(tree) for tree in trees]

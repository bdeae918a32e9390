"""Rank the whole catalogue for users, tile by tile of items, and score given pairs."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation import user_batches
from hlr_jax.evaluation.batch_memory import check_batch
from hlr_jax.evaluation.device_groups import DeviceGroups, group_axes
from hlr_jax.evaluation.hidden_items import HiddenItems, Shard, pairs_length
from hlr_jax.kernels.sizes import FEW_USERS, batches_ahead, ranking_tile
from hlr_jax.kernels.top_k import candidates
from hlr_jax.models.relation import Relation, apply, embed_tables
from hlr_jax.parallel import devices, processes
from hlr_jax.parallel.layout import Layout, on_each_device, own_places, own_rows, psum, spec
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.histories import HistoryDraw, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.neighbours import neighbours_for
from hlr_jax.types import History, HistoryIds, Params


class _Users(NamedTuple):
    """A batch of users to rank for; or the shardings of its arrays, in the same form.

    Attributes:
      rows: `[u]`; of the user table, or of the shards of it that a group of devices has.
      numbers: `[u]`; of the users, among all.
      hidden: items that are not to be ranked.
    """

    rows: Any
    numbers: Any
    hidden: HiddenItems

    def specs(self, layout: Layout) -> "_Users":
        """Shard the users by groups of devices."""
        groups = spec(group_axes(layout))
        return _Users(groups, groups, self.hidden.specs(layout))


class _Tables(NamedTuple):
    """The model, its parameters and the histories that users are ranked with.

    Attributes:
      model: the relation.
      params: of the model; rows of the tables are points, followed by means of neighbours if the
        model reads these.
      history: interactions of the users.
      draw: how items of a longer history are drawn.
    """

    model: Relation
    params: Params
    history: DeviceInteractions
    draw: HistoryDraw


@functools.partial(jax.jit, static_argnames=("k", "layout", "mesh"))
def _top_k(
    users: _Users, tables: _Tables, k: int, layout: Layout, mesh: Mesh
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    """Find the k best items of each user, on the devices of one process.

    Devices with different shards of the items rank for the same users, and merge their lists.
    """

    def of_group(users: _Users, tables: _Tables) -> Any:
        params, catalogue = tables.params, tables.params["item"]
        histories = _histories(users, tables, layout)
        if layout.item:
            ids = histories.items.reshape(-1)
            catalogue = psum(own_rows(catalogue, ids, layout.item), layout.item)
            places = jnp.arange(ids.size, dtype=jnp.int32).reshape(histories.items.shape)
            histories = histories._replace(items=places)
        axes = layout.item if layout.user else ()
        user_rows = psum(own_rows(params["user"], users.rows, axes), axes)
        scorer = functools.partial(_scores, tables, user_rows, catalogue, histories)
        rows = len(params["item"])
        number = jax.lax.axis_index(layout.item) if layout.item else jnp.zeros((), jnp.int32)
        shard = Shard(number * rows, rows)
        hide = functools.partial(users.hidden.hide, shard=shard)
        tile = ranking_tile(len(user_rows), rows)
        ids, scores = _top_k_of_shard((scorer, hide), len(user_rows), params["item"], tile, k)
        if layout.item:
            ids = jnp.where(ids >= 0, ids + shard.first, -1)
            # In the order of shards, so that equal scores stay in the order of ids.
            ids, scores = (
                jax.lax.all_gather(x, layout.item, axis=1, tiled=True) for x in (ids, scores)
            )
            scores, where = jax.lax.top_k(scores, k)
            ids = jnp.take_along_axis(ids, where, axis=1)
        return ids, scores

    specs = _Tables(spec(()), layout.of_params(tables.params), spec(layout.user), spec(()))  # type: ignore[arg-type]
    by_user = spec(group_axes(layout))
    in_specs = users.specs(layout), specs
    return on_each_device(of_group, mesh, in_specs, (by_user, by_user))(users, tables)


def _scores(
    tables: _Tables,
    users: Float[Array, "u a"],
    catalogue: Float[Array, "c b"],
    histories: HistoryIds,
    tile: Float[Array, "t b"],
) -> Float[Array, "u t"]:
    """Score users with the items of a tile by `Relation.scores`."""
    found = apply(
        tables.model, tables.params["relation"], "scores", users, tile, catalogue, histories
    )
    assert isinstance(found, jax.Array)
    return found


def _histories(users: _Users, tables: _Tables, layout: Layout) -> HistoryIds:
    """Draw the histories of a group's users, on the device that has their interactions."""
    history, draw = tables.history, tables.draw
    if not layout.user:
        return user_histories(draw, history, users.rows, users.numbers)
    history = jax.tree.map(lambda x: x[0], history)
    size = len(history.offsets) - 1
    rows = own_places(users.rows, size, layout.item)
    drawn = user_histories(draw, history, jnp.minimum(rows, size - 1), users.numbers)
    is_own = (rows < size)[:, None]
    items = psum(jnp.where(is_own, drawn.items, 0), layout.item)
    mask = psum((is_own & drawn.mask).astype(jnp.int32), layout.item)
    return HistoryIds(items, mask > 0)


def _top_k_of_shard(
    scoring: tuple[Any, Any], users: int, items: Float[Array, "i b"], tile: int, k: int
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    """Find the k best items of a shard.

    Args:
      scoring: computes scores `[u, t]` of all users with the rows of a tile; and hides some of
        these, of a tile that starts at a place of the shard.
      users: `u`.
    """
    scorer, hide = scoring
    tiles = -(-len(items) // tile)
    items = jnp.pad(items, ((0, tiles * tile - len(items)), (0, 0)))

    def merge(best: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        first = number * tile
        scores = hide(scorer(jax.lax.dynamic_slice_in_dim(items, first, tile)), first)
        places, scores = candidates(scores, k)
        all_scores = jnp.concatenate([best[1], scores], axis=1)
        all_ids = jnp.concatenate([best[0], first + places], axis=1)
        top, where = jax.lax.top_k(all_scores, k)
        return (jnp.take_along_axis(all_ids, where, axis=1), top), None

    nothing = jnp.full((users, k), -1, jnp.int32), jnp.full((users, k), -jnp.inf)
    (ids, scores), _ = jax.lax.scan(merge, nothing, jnp.arange(tiles, dtype=jnp.int32))
    return jnp.where(scores > -jnp.inf, ids, -1), scores


@dataclasses.dataclass(frozen=True)
class Ranker:
    """Ranks the whole catalogue for users.

    Attributes:
      model: the relation that scores.
      params: of the model, placed.
      placement: which devices hold which parameters.
      draw: how histories are drawn.
      batch_size: users that are ranked together.
    """

    model: Relation
    params: Params
    placement: Placement
    draw: HistoryDraw
    batch_size: int = 8192

    def top_k(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        history: Interactions,
        seen: Interactions,
        show_progress: bool = False,
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find the k best items of the whole catalogue that each user has not seen.

        Equal scores come in the order of item ids. Neither the scores of the whole catalogue nor
        the relations are ever held together.

        Args:
          users: rows of `history` and `seen`.
          history: what the relation reads of a user. It must be among `seen`, because a target may
            not be in its own history. If users are sharded, both hold the users of this process's
            devices, numbered from 0.
          seen: what is left out.

        Returns:
          Item ids and scores, best first; -1 and -inf where fewer than k items remain.
        """
        groups, params = self._placed(history, len(users))
        tables = _Tables(
            groups.everywhere(self.model),
            params,
            groups.interactions(history),
            groups.everywhere(self.draw),
        )
        ids = np.full((len(users), k), -1, np.int32)
        scores = np.full((len(users), k), -np.inf, "f4")
        found = self._results(users, k, seen, groups, tables)
        with _progress_bar(len(users), show_progress) as bar:
            # What is read is finished; meanwhile devices have work.
            for places, best in user_batches.late(found, batches_ahead()):
                shape = (len(places), -1, k)
                best_ids, best_scores = (np.asarray(x).reshape(shape) for x in best)
                for group, of_ids, of_scores in zip(places, best_ids, best_scores, strict=True):
                    ids[group] = of_ids[: len(group)]
                    scores[group] = of_scores[: len(group)]
                bar.update(sum(map(len, places)))
        return ids, scores

    def _results(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        seen: Interactions,
        groups: DeviceGroups,
        tables: _Tables,
    ) -> Iterator[tuple[user_batches.Places, Any]]:
        """Begin batch after batch; yield the places of its users, and results on the devices."""
        most = max(1, min(self.batch_size, len(users)))
        batches, size = user_batches.divide(groups.divide(users), most)
        free = devices.free_bytes(groups.mesh.devices.flat[0].memory_stats())
        check_batch(self.model, (size, groups.count), groups.item_shards[1], self.draw.length, free)
        of_groups = [[users[group] for group in places] for places in batches]
        length = pairs_length(seen, of_groups)
        for places, of_batch in zip(batches, of_groups, strict=True):
            # Always the same shapes, so that one compilation serves all batches.
            padded = np.stack([user_batches.padded(group, size) for group in of_batch])
            hidden = HiddenItems.of(seen, of_batch, size, length)
            yield places, _top_k_of_batch(groups, tables, padded, hidden, k)

    def _placed(self, history: Interactions, users: int) -> tuple[DeviceGroups, Params]:
        """Choose the devices that rank, and place the points that they rank with."""
        if self.placement.layout.user:
            groups = DeviceGroups.of(self.placement)
            return groups, _points(self.model, groups.params(self.params))
        # Tables are replicated, and few users are ranked by a single device.
        params = self.replicated_points(history)
        count = devices.count() if min(self.batch_size, users) >= FEW_USERS else 1
        placement = Placement.replicated(count, len(params["user"]), len(params["item"]))
        return DeviceGroups.of(placement), placement.params(params)

    def replicated_points(self, history: Interactions) -> Params:
        """Compute the points of replicated tables on one device.

        Args:
          history: says who is whose neighbour, for a model that reads neighbours.
        """
        params = self.placement.one_copy(self.params)
        interactions = DeviceInteractions.of(history)
        neighbours = neighbours_for(self.model, interactions, self.placement.num_items)
        return _points(self.model, neighbours.widened(self.model, params))

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        items: Int[np.ndarray, "u c"],
        history: Interactions,
    ) -> Float[np.ndarray, "u c"]:
        """Score candidates of each user: minus the distances to them, for replicated tables.

        A candidate that is in the user's history is left out of that history.
        """
        tables = _Tables(
            self.model, self.replicated_points(history), DeviceInteractions.of(history), self.draw
        )
        scores = np.empty(items.shape, np.float32)
        for start in range(0, len(users), self.batch_size):
            part = slice(start, start + self.batch_size)
            scores[part] = _pair_scores(
                jnp.asarray(users[part], jnp.int32), jnp.asarray(items[part]), tables
            )
        return scores


@jax.jit
def _points(model: Relation, params: Params) -> Params:
    return embed_tables(model, params)


def _top_k_of_batch(
    groups: DeviceGroups,
    tables: _Tables,
    users: Int[np.ndarray, "g n"],
    hidden: HiddenItems,
    k: int,
) -> tuple[Int[Array, "gn k"], Float[Array, "gn k"]]:
    """Find the k best items of a batch of users, of which each group of devices has `n`."""
    batch = _Users(*groups.rows_and_numbers(users), hidden)
    batch = groups.spread(batch, batch.specs(groups.layout))
    # Scores are differences of large terms; TF32 products would reorder near ties.
    with jax.default_matmul_precision("highest"):
        ids, scores = _top_k(batch, tables, k, groups.layout, groups.mesh)
    return ids, scores


def _progress_bar(users: int, show_progress: bool) -> "tqdm[Any]":
    return tqdm(
        total=users,
        unit=" users",
        desc="ranking",
        disable=not (show_progress and processes.is_first()),
        dynamic_ncols=True,
    )


@jax.jit
def _pair_scores(
    users: Int[Array, "u"], items: Int[Array, "u c"], tables: _Tables
) -> Float[Array, "u c"]:
    """Score each user with its own candidates, 64 users at a time to bound the memory."""
    model, params = tables.model, tables.params

    def scores_of_one(user: Array, candidates: Array) -> Array:
        user_row, item_rows = params["user"][user][None, None], params["item"][candidates][None]
        drawn = user_histories(tables.draw, tables.history, user[None], user[None])
        valid = drawn.mask[:, None] & (drawn.items[:, None] != candidates[None, :, None])
        history = History(params["item"][drawn.items][:, None], valid)
        return -apply(model, params["relation"], "distances", user_row, item_rows, history)[0]

    return jax.lax.map(lambda pair: scores_of_one(*pair), (users, items), batch_size=64)

"""Rank the whole catalogue for users, tile by tile of items, and score given pairs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from hlr_jax.evaluation.device_groups import group_axes
from hlr_jax.evaluation.hidden_items import HiddenItems, Shard
from hlr_jax.kernels.sizes import ranking_tile
from hlr_jax.kernels.top_k import candidates
from hlr_jax.models.relation import Relation, apply, embed_tables
from hlr_jax.parallel.layout import Layout, on_each_device, own_places, own_rows, psum, spec
from hlr_jax.sampling.histories import HistoryDraw, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import History, HistoryIds, Params


class Users(NamedTuple):
    """A batch of users to rank for; or the shardings of its arrays, in the same form.

    Attributes:
      rows: `[u]`; of the user table, or of the shards of it that a group of devices has.
      hidden: items that are not to be ranked.
    """

    rows: Any
    hidden: HiddenItems

    def specs(self, layout: Layout) -> "Users":
        """Shard the users by groups of devices."""
        groups = spec(group_axes(layout))
        return Users(groups, self.hidden.specs(layout))


class Tables(NamedTuple):
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
def top_k(
    users: Users, tables: Tables, k: int, layout: Layout, mesh: Mesh
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    """Find the k best items of each user, on the devices of one process.

    Devices with different shards of the items rank for the same users, and merge their lists.
    """

    def of_group(users: Users, tables: Tables) -> Any:
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

    specs = Tables(spec(()), layout.of_params(tables.params), spec(layout.user), spec(()))  # type: ignore[arg-type]
    by_user = spec(group_axes(layout))
    in_specs = users.specs(layout), specs
    return on_each_device(of_group, mesh, in_specs, (by_user, by_user))(users, tables)


def _scores(
    tables: Tables,
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


def _histories(users: Users, tables: Tables, layout: Layout) -> HistoryIds:
    """Draw the histories of a group's users, on the device that has their interactions."""
    history, draw = tables.history, tables.draw
    if not layout.user:
        return user_histories(draw, history, users.rows)
    history = jax.tree.map(lambda x: x[0], history)
    size = len(history.offsets) - 1
    rows = own_places(users.rows, size, layout.item)
    drawn = user_histories(draw, history, jnp.minimum(rows, size - 1))
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


@jax.jit
def points(model: Relation, params: Params) -> Params:
    return embed_tables(model, params)


@jax.jit
def pair_scores(
    users: Int[Array, "u"], items: Int[Array, "u c"], tables: Tables
) -> Float[Array, "u c"]:
    """Score each user with its own candidates, 64 users at a time to bound the memory."""
    model, params = tables.model, tables.params

    def scores_of_one(user: Array, candidates: Array) -> Array:
        user_row, item_rows = params["user"][user][None, None], params["item"][candidates][None]
        drawn = user_histories(tables.draw, tables.history, user[None])
        valid = drawn.mask[:, None] & (drawn.items[:, None] != candidates[None, :, None])
        history = History(params["item"][drawn.items][:, None], valid)
        return -apply(model, params["relation"], "distances", user_row, item_rows, history)[0]

    return jax.lax.map(lambda pair: scores_of_one(*pair), (users, items), batch_size=64)


@jax.jit
def positions(users: Int[Array, "u"], tables: Tables) -> Float[Array, "u d"]:
    """Locate users: where their relation leads them, if it is the same for all items.

    Otherwise it is their first vector, which the relation of each item translates.
    """
    model, params = tables.model, tables.params
    rows = params["user"][users]
    if model.reads_item:
        return model.first(rows)
    drawn = user_histories(tables.draw, tables.history, users)
    history = History(params["item"][drawn.items], drawn.mask)
    arguments = rows, params["item"][:1], history
    found = apply(model, params["relation"], "translated_once", *arguments)
    assert isinstance(found, jax.Array)
    return found

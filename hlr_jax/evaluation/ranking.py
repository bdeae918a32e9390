"""Full-catalogue top-k in tiles of items, and scores of given pairs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from tqdm import tqdm

from hlr_jax.data.interactions import Interactions
from hlr_jax.models import relation as base
from hlr_jax.models.relation import Histories, History, Relation
from hlr_jax.parallel import devices, processes
from hlr_jax.parallel.layout import Axes, Layout, own_places, own_rows, spec
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling.sources import Rows
from hlr_jax.training.neighbours import Neighbours
from hlr_jax.training.objective import Params

# Items merged into the best at once, a multiple of 8.
TILE = 512
# Fewer users than this are ranked on one device.
_FEW = 64
# Most bytes of a batch's mask of seen items.
_MOST_HIDDEN = 2**28
# Most bytes of a mask before it is packed.
_UNPACKED = 2**22


def user_histories(
    key: Key[Array, ""],
    history: Rows,
    users: Int[Array, "u"],
    length: int,
    log_weights: Float[Array, "i"] | None,
    numbers: Int[Array, "u"] | None = None,
) -> Histories:
    """Up to `length` history items of each user; which of them depends on key and user only.

    Args:
      users: rows of `history`.
      numbers: of the users among all, if `history` is of a part of them.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, users if numbers is None else numbers)
    no_target = jnp.full((), -1, jnp.int32)
    return jax.vmap(
        lambda k, u: sampling.sample_history(k, history, u, no_target, length, log_weights)
    )(keys, users)


class _Users(NamedTuple):
    """Users to rank for: `[u]`, `[u]` and `[u, bytes]`, or how these are spread.

    Attributes:
      rows: of the user table, or of the blocks of it that a group of devices has.
      numbers: among all users.
      hidden: a bit for each item of the tiles, of each block of items.
    """

    rows: Any
    numbers: Any
    hidden: Any


@functools.partial(jax.jit, static_argnames=("model", "k", "length", "layout", "mesh"))
def _top_k(
    users: _Users,
    params: Params,
    history: Rows,
    log_weights: Float[Array, "i"] | None,
    key: Key[Array, ""],
    model: Relation,
    k: int,
    length: int,
    layout: Layout,
    mesh: Mesh,
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    """The k best, by the devices of one process.

    Devices with different blocks of items rank for the same users, and merge what they found.
    """
    groups = tuple(axis for axis in layout.batch if axis not in layout.item)
    by_user = spec(groups)

    def of_group(users: Any, params: Any, history: Any, log_weights: Any, key: Any) -> Any:
        histories, catalogue = None, params["item"]
        if model.uses_history:
            histories = _histories(users, history, log_weights, key, length, layout)
            if layout.item:
                ids = histories.items.reshape(-1)
                catalogue = _everywhere(own_rows(catalogue, ids, layout.item), layout.item)
                places = jnp.arange(ids.size, dtype=jnp.int32).reshape(histories.items.shape)
                histories = histories._replace(items=places)
        axes = layout.item if layout.user else ()
        user_rows = _everywhere(own_rows(params["user"], users.rows, axes), axes)
        ids, scores = _top_k_of_block(
            user_rows, users.hidden, params, catalogue, histories, model, k
        )
        if layout.item:
            block = jax.lax.axis_index(layout.item)
            ids = jnp.where(ids >= 0, ids + block * len(params["item"]), -1)
            # In the order of blocks, so that equal scores stay in the order of ids.
            ids, scores = (
                jax.lax.all_gather(x, layout.item, axis=1, tiled=True) for x in (ids, scores)
            )
            scores, where = jax.lax.top_k(scores, k)
            ids = jnp.take_along_axis(ids, where, axis=1)
        return ids, scores

    of_params = {
        name: jax.tree.map(lambda _, name=name: layout.of(name), x) for name, x in params.items()
    }
    hidden = PartitionSpec(groups, layout.item or None)
    return jax.shard_map(
        of_group,
        mesh=mesh,
        in_specs=(
            _Users(by_user, by_user, hidden),
            of_params,
            spec(layout.user),
            spec(()),
            spec(()),
        ),
        out_specs=(by_user, by_user),
        check_vma=False,
    )(users, params, history, log_weights, key)


def _everywhere(rows: Array, axes: Axes) -> Array:
    """Rows that one device of those along the axes has, and the others have zeros of."""
    return jax.lax.psum(rows, axes) if axes else rows


def _histories(
    users: _Users,
    history: Rows,
    log_weights: Float[Array, "i"] | None,
    key: Key[Array, ""],
    length: int,
    layout: Layout,
) -> Histories:
    """Histories of a group's users, drawn by the device that has their interactions."""
    if not layout.user:
        return user_histories(key, history, users.rows, length, log_weights)
    history = jax.tree.map(lambda x: x[0], history)
    size = len(history.offsets) - 1
    rows = own_places(users.rows, size, layout.item)
    drawn = user_histories(
        key, history, jnp.minimum(rows, size - 1), length, log_weights, users.numbers
    )
    is_own = (rows < size)[:, None]
    items = _everywhere(jnp.where(is_own, drawn.items, 0), layout.item)
    mask = _everywhere((is_own & drawn.mask).astype(jnp.int32), layout.item)
    return Histories(items, mask > 0)


def _top_k_of_block(
    user_rows: Float[Array, "u a"],
    hidden: UInt8[Array, "u bytes"],
    params: Params,
    catalogue: Float[Array, "c b"],
    histories: Histories | None,
    model: Relation,
    k: int,
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    """The k best of a block of items.

    Args:
      catalogue: the item rows that `histories` index.
    """
    places = 8 * hidden.shape[1]
    tile = min(TILE, places)
    items = jnp.pad(params["item"], ((0, places - len(params["item"])), (0, 0)))

    def merge(best: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        first = number * tile
        rows = jax.lax.dynamic_slice_in_dim(items, first, tile)
        scores = base.scores(model, params["relation"], user_rows, rows, catalogue, histories)
        bits = jax.lax.dynamic_slice_in_dim(hidden, first // 8, tile // 8, axis=1)
        scores = jnp.where(_unpack(bits), -jnp.inf, scores)
        ids = jnp.broadcast_to(first + jnp.arange(tile), scores.shape)
        all_scores = jnp.concatenate([best[1], scores], axis=1)
        all_ids = jnp.concatenate([best[0], ids], axis=1)
        top, where = jax.lax.top_k(all_scores, k)
        return (jnp.take_along_axis(all_ids, where, axis=1), top), None

    nothing = (
        jnp.full((len(user_rows), k), -1, jnp.int32),
        jnp.full((len(user_rows), k), -jnp.inf),
    )
    (ids, scores), _ = jax.lax.scan(merge, nothing, jnp.arange(places // tile))
    return jnp.where(scores > -jnp.inf, ids, -1), scores


def _unpack(bits: UInt8[Array, "u bytes"]) -> Bool[Array, "u bits"]:
    """The inverse of `np.packbits` with the lowest bit first."""
    masks = jnp.left_shift(jnp.uint8(1), jnp.arange(8, dtype=jnp.uint8))
    return ((bits[..., None] & masks[None, None]) != 0).reshape(len(bits), -1)


def top_k(
    model: Relation,
    params: Params,
    history: Interactions,
    seen: Interactions,
    users: Int[np.ndarray, "u"],
    k: int,
    length: int,
    key: Key[Array, ""],
    log_weights: Float[Array, "i"] | None = None,
    batch_size: int = 8192,
    show_progress: bool = False,
    placement: Placement | None = None,
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """The k best items of the whole catalogue for each user, without those the user has seen.

    Equal scores come in the order of item ids. Neither scores of the whole catalogue nor
    relations are ever held at once.

    Args:
      history: what the relation sees of a user; where that is more than `length` items,
        `length` of them are drawn by `key`. They must be among `seen`, because a target may
        not be in its own history.
      seen: what is left out.
      users: rows of `history` and `seen`.
      placement: where the parameters are; None if they are whole. If they are cut, `history`
        and `seen` are those of the placement's own users, numbered from 0.

    Returns:
      Item ids and scores, best first; -1 and -inf where fewer than k items remain.
    """
    if placement is None or not placement.layout.user:
        # All is everywhere, and few users are ranked by a single device.
        if placement is not None:
            params = placement.one_copy(params)
        params = read_params(model, params, history)
        count = devices.count() if min(batch_size, len(users)) >= _FEW else 1
        placement = Placement.replicated(count, len(params["user"]), len(params["item"]))
        params = placement.params(params)
    # Which items are hidden from a batch of users takes a bit for each pair.
    most = max(1, min(batch_size, len(users), 8 * _MOST_HIDDEN // placement.num_items))
    ranker = placement.ranker()
    groups = ranker.groups(users)
    size = _batch_of(max(map(len, groups)), most, len(groups))
    arguments = (ranker.params(params), ranker.rows(history), *ranker.everywhere(log_weights, key))
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, "f4")
    with tqdm(
        total=len(users),
        unit=" users",
        desc="ranking",
        disable=not (show_progress and processes.is_first()),
        dynamic_ncols=True,
    ) as bar:
        for start in range(0, max(map(len, groups)), size):
            places = [group[start : start + size] for group in groups]
            # Always the same shapes, so that one compilation serves all batches.
            padded = np.stack([_filled(users[x], size) for x in places])
            hidden = _hidden(seen, padded.ravel(), *ranker.item_blocks)
            rows, numbers = ranker.rows_and_numbers(padded)
            batch = ranker.spread(_Users(rows, numbers, hidden))
            # Scores are differences of large terms; TF32 products would reorder near ties.
            with jax.default_matmul_precision("highest"):
                best = _top_k(batch, *arguments, model, k, length, ranker.layout, ranker.mesh)
            best_ids, best_scores = (np.asarray(x).reshape(*padded.shape, k) for x in best)
            for found, group in enumerate(places):
                ids[group] = best_ids[found, : len(group)]
                scores[group] = best_scores[found, : len(group)]
            bar.update(sum(map(len, places)))
    return ids, scores


def read_params(model: Relation, params: Params, history: Interactions) -> Params:
    """What a model reads of parameters that are whole: neighbours are those in `history`."""
    if not model.uses_neighbours:
        return params
    return Neighbours.of(Rows.of(history), len(params["item"])).widened(params)


def _filled(users: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "size"]:
    """So many users; instead of missing ones, any."""
    return np.resize(users, size) if len(users) else np.zeros(size, np.int32)


def _batch_of(users: int, most: int, groups: int) -> int:
    """Users of a group in each of its equal batches; many users come in blocks of 16."""
    per_group = max(1, most // groups)
    batches = max(1, -(-users // per_group))
    size = max(1, -(-users // batches))
    block = 16 if most >= _FEW else 1
    return -(-size // block) * block


def _hidden(
    seen: Interactions, users: Int[np.ndarray, "u"], blocks: int, block: int
) -> UInt8[np.ndarray, "u bytes"]:
    """A bit for each item, lowest first, set where the user has seen it.

    Every block of items is filled up to full tiles by items that are seen. Looking a tile up in
    the users' lists instead takes longer than scoring it by CML.
    """
    tile = min(TILE, -(-block // 8) * 8)
    places = -(-block // tile) * tile
    items = np.arange(seen.num_items)
    column = items // block * places + items % block
    packed = np.empty((len(users), blocks * places // 8), np.uint8)
    step = max(1, _UNPACKED // (blocks * places))
    for start in range(0, len(users), step):
        some = users[start : start + step]
        counts = seen.counts[some]
        row = np.repeat(np.arange(len(some)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        mask = np.ones((len(some), blocks * places), bool)
        mask[:, column] = False
        mask[row, column[seen.items[seen.offsets[some][row] + within]]] = True
        packed[start : start + step] = np.packbits(mask, axis=1, bitorder="little")
    return packed


@functools.partial(jax.jit, static_argnames=("model", "length"))
def pair_scores(
    params: Params,
    users: Int[Array, "u"],
    items: Int[Array, "u c"],
    history: Rows,
    log_weights: Float[Array, "i"] | None,
    key: Key[Array, ""],
    model: Relation,
    length: int,
) -> Float[Array, "u c"]:
    """`-||user + r - item||^2` of each user with candidates of its own.

    A candidate that is in the user's history is left out of it. Users are taken a few at a time:
    what a relation makes of all their candidates and histories would fill the memory.
    """

    def scores_of_one(user: Array, candidates: Array) -> Array:
        user_row, item_rows = params["user"][user][None, None], params["item"][candidates][None]
        histories = None
        if model.uses_history:
            drawn = user_histories(key, history, user[None], length, log_weights)
            valid = drawn.mask[:, None] & (drawn.items[:, None] != candidates[None, :, None])
            histories = History(params["item"][drawn.items][:, None], valid)
        found = base.apply(model, params["relation"], "distances", user_row, item_rows, histories)
        return -found[0]

    return jax.lax.map(lambda pair: scores_of_one(*pair), (users, items), batch_size=64)

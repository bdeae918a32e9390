"""Full-catalogue top-k in tiles of items, and scores of given pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from tqdm import tqdm

from hlr_jax import devices, functional, sampling
from hlr_jax.data.interactions import Interactions
from hlr_jax.models import base
from hlr_jax.models.base import Histories, History, Relation
from hlr_jax.objective import Params
from hlr_jax.sampling import Rows

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
) -> Histories:
    """Up to `length` history items of each user; which of them depends on key and user only."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, users)
    no_target = jnp.full((), -1, jnp.int32)
    return jax.vmap(
        lambda k, u: sampling.sample_history(k, history, u, no_target, length, log_weights)
    )(keys, users)


@functools.partial(
    jax.pmap,
    axis_name=devices.AXIS,
    in_axes=(0, 0, 0, None, None, None, None, None),
    static_broadcasted_argnums=(8, 9, 10),
)
def _top_k(
    users: Int[Array, "u"],
    user_rows: Float[Array, "u d"],
    hidden: UInt8[Array, "u bytes"],
    catalogue: Float[Array, "i d"],
    relation: Params,
    history: Rows,
    log_weights: Float[Array, "i"] | None,
    key: Key[Array, ""],
    model: Relation,
    k: int,
    length: int,
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    places = 8 * hidden.shape[1]
    tile = min(TILE, places)
    items = jnp.pad(catalogue, ((0, places - len(catalogue)), (0, 0)))
    histories = None
    if model.uses_history:
        histories = user_histories(key, history, users, length, log_weights)

    def merge(best: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        first = number * tile
        rows = jax.lax.dynamic_slice_in_dim(items, first, tile)
        scores = base.scores(model, relation, user_rows, rows, catalogue, histories)
        bits = jax.lax.dynamic_slice_in_dim(hidden, first // 8, tile // 8, axis=1)
        scores = jnp.where(_unpack(bits), -jnp.inf, scores)
        ids = jnp.broadcast_to(first + jnp.arange(tile), scores.shape)
        all_scores = jnp.concatenate([best[1], scores], axis=1)
        all_ids = jnp.concatenate([best[0], ids], axis=1)
        top, where = jax.lax.top_k(all_scores, k)
        return (jnp.take_along_axis(all_ids, where, axis=1), top), None

    nothing = (
        jnp.full((len(users), k), -1, jnp.int32),
        jnp.full((len(users), k), -jnp.inf),
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
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """The k best items of the whole catalogue for each user, without those the user has seen.

    Equal scores come in the order of item ids. Neither scores of the whole catalogue nor
    relations are ever held at once.

    Args:
      history: what the relation sees of a user; where that is more than `length` items,
        `length` of them are drawn by `key`. They must be among `seen`, because a target may
        not be in its own history.
      seen: what is left out.
      users: rows of the user table.

    Returns:
      Item ids and scores, best first; -1 and -inf where fewer than k items remain.
    """
    num_items = len(params["item"])
    # Which items are hidden from a batch of users takes a bit for each pair.
    batch_size = max(1, min(batch_size, len(users), 8 * _MOST_HIDDEN // num_items))
    parts = devices.count() if batch_size >= _FEW else 1
    shared = devices.replicate(
        (params["item"], params["relation"], Rows.of(history), log_weights, key), parts
    )
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, "f4")
    size = _batch_of(len(users), batch_size, parts)
    with tqdm(
        total=len(users),
        unit=" users",
        desc="ranking",
        disable=not show_progress,
        dynamic_ncols=True,
    ) as bar:
        for start in range(0, len(users), size):
            part = users[start : start + size]
            # Always the same shapes, so that one compilation serves all batches.
            padded = np.resize(part, size)
            # Scores are differences of large terms; TF32 products would reorder near ties.
            with jax.default_matmul_precision("highest"):
                of_users = (padded.astype(np.int32), params["user"][padded], _hidden(seen, padded))
                split = (devices.spread(x, parts) for x in of_users)
                best = _top_k(*split, *shared, model, k, length)
            best_ids, best_scores = (np.asarray(x).reshape(size, k) for x in best)
            ids[start : start + len(part)] = best_ids[: len(part)]
            scores[start : start + len(part)] = best_scores[: len(part)]
            bar.update(len(part))
    return ids, scores


def _batch_of(users: int, most: int, parts: int) -> int:
    """The size of equal batches; many users come in blocks of 16 for each device."""
    batches = max(1, -(-users // most))
    size = max(1, -(-users // batches))
    block = 16 * parts if most >= _FEW else 1
    return -(-size // block) * block


def _hidden(seen: Interactions, users: Int[np.ndarray, "u"]) -> UInt8[np.ndarray, "u bytes"]:
    """A bit for each item, lowest first, set where the user has seen it; then 1 up to full tiles.

    Looking a tile up in the users' lists instead takes longer than scoring it by CML.
    """
    tile = min(TILE, -(-seen.num_items // 8) * 8)
    places = -(-seen.num_items // tile) * tile
    packed = np.empty((len(users), places // 8), np.uint8)
    step = max(1, _UNPACKED // places)
    for start in range(0, len(users), step):
        some = users[start : start + step]
        counts = seen.counts[some]
        row = np.repeat(np.arange(len(some)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        mask = np.zeros((len(some), places), bool)
        mask[:, seen.num_items :] = True
        mask[row, seen.items[seen.offsets[some][row] + within]] = True
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
        relation = base.relation(model, params["relation"], user_row, item_rows, histories)
        return -functional.translated_distance(user_row, relation, item_rows)[0]

    return jax.lax.map(lambda pair: scores_of_one(*pair), (users, items), batch_size=64)

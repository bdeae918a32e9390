"""Full-catalogue top-k in tiles of items, and scores of given pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from tqdm import tqdm

from hlr_jax import functional, sampling
from hlr_jax.data.interactions import Interactions
from hlr_jax.models import base
from hlr_jax.models.base import Histories, History, Relation
from hlr_jax.sampling import Rows
from hlr_jax.training import Params

# Items scored at once.
TILE = 64


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


@functools.partial(jax.jit, static_argnames=("model", "k", "length", "tile"))
def _top_k(
    params: Params,
    users: Int[Array, "u"],
    seen: Int[Array, "u s"],
    history: Rows,
    log_weights: Float[Array, "i"] | None,
    key: Key[Array, ""],
    model: Relation,
    k: int,
    length: int,
    tile: int,
) -> tuple[Int[Array, "u k"], Float[Array, "u k"]]:
    num_items = len(params["item"])
    tiles = -(-num_items // tile)
    items = jnp.pad(params["item"], ((0, tiles * tile - num_items), (0, 0)))
    histories = None
    if model.uses_history:
        histories = user_histories(key, history, users, length, log_weights)

    def merge(best: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        first = number * tile
        ids = first + jnp.arange(tile)
        rows = jax.lax.dynamic_slice_in_dim(items, first, tile)
        scores = base.scores(
            model, params["relation"], params["user"][users], rows, params["item"], histories
        )
        hidden = jax.vmap(_contains, (0, None))(seen, ids) | (ids >= num_items)[None]
        scores = jnp.where(hidden, -jnp.inf, scores)
        all_scores = jnp.concatenate([best[1], scores], axis=1)
        all_ids = jnp.concatenate([best[0], jnp.broadcast_to(ids, scores.shape)], axis=1)
        top, where = jax.lax.top_k(all_scores, k)
        return (jnp.take_along_axis(all_ids, where, axis=1), top), None

    nothing = (
        jnp.full((len(users), k), -1, jnp.int32),
        jnp.full((len(users), k), -jnp.inf),
    )
    (ids, scores), _ = jax.lax.scan(merge, nothing, jnp.arange(tiles))
    return jnp.where(scores > -jnp.inf, ids, -1), scores


def _contains(sorted_ids: Int[Array, "s"], ids: Int[Array, "t"]) -> Bool[Array, "t"]:
    """Which of `ids` are among `sorted_ids`."""
    place = jnp.searchsorted(sorted_ids, ids)
    return sorted_ids[jnp.minimum(place, len(sorted_ids) - 1)] == ids


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
    batch_size: int = 1024,
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
    rows = Rows.of(history)
    tile = min(TILE, len(params["item"]))
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, "f4")
    with tqdm(
        total=len(users),
        unit=" users",
        desc="ranking",
        disable=not show_progress,
        dynamic_ncols=True,
    ) as bar:
        for start in range(0, len(users), batch_size):
            part = users[start : start + batch_size]
            # Always the same shapes, so that one compilation serves all batches.
            padded = np.resize(part, min(batch_size, len(users)))
            # Scores are differences of large terms; TF32 products would reorder near ties.
            with jax.default_matmul_precision("highest"):
                best = _top_k(
                    params,
                    jnp.asarray(padded, jnp.int32),
                    jnp.asarray(_padded_rows(seen, padded)),
                    rows,
                    log_weights,
                    key,
                    model=model,
                    k=k,
                    length=length,
                    tile=tile,
                )
            ids[start : start + len(part)] = best[0][: len(part)]
            scores[start : start + len(part)] = best[1][: len(part)]
            bar.update(len(part))
    return ids, scores


def _padded_rows(interactions: Interactions, users: np.ndarray) -> Int[np.ndarray, "u s"]:
    """The items of each user, increasing, padded to the longest user's power of two."""
    counts = interactions.counts[users]
    width = 1 << int(interactions.counts.max(initial=1) - 1).bit_length()
    rows = np.full((len(users), width), np.iinfo(np.int32).max, np.int32)
    mask = np.arange(width) < counts[:, None]
    rows[mask] = np.concatenate([interactions.of(user) for user in users.tolist()])
    return rows


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

    A candidate that is in the user's history is left out of it.
    """
    user_rows, item_rows = params["user"][users][:, None], params["item"][items]
    histories = None
    if model.uses_history:
        drawn = user_histories(key, history, users, length, log_weights)
        valid = drawn.mask[:, None] & (drawn.items[:, None] != items[..., None])
        histories = History(params["item"][drawn.items][:, None], valid)
    relation = base.relation(model, params["relation"], user_rows, item_rows, histories)
    return -functional.translated_distance(user_rows, relation, item_rows)

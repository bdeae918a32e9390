"""Measure a relation on a grid: every one of some users with every one of some items."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.functional import Attention
from hlr_jax.kernels.sizes import pair_tile
from hlr_jax.models.relation import Relation, apply
from hlr_jax.sampling.histories import user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import History, Params


class Grid(NamedTuple):
    """Whom a relation is measured between.

    Attributes:
      users, items: rows of the tables.
      removed: `[u]` from 0 to 1: which place of a user's history, as a share of its length, is
        removed to see what that changes.
    """

    users: Int[np.ndarray, "u"]
    items: Int[np.ndarray, "i"]
    removed: Float[np.ndarray, "u"]


class Moments(NamedTuple):
    """Sums over the relations of a grid.

    Attributes:
      of_users: `[u, d]` mean relation of each user.
      of_items: `[i, d]` mean relation of each item.
      norm: mean norm.
      square: mean squared norm.
    """

    of_users: Float64[np.ndarray, "u d"]
    of_items: Float64[np.ndarray, "i d"]
    norm: float
    square: float

    @property
    def mean(self) -> Float64[np.ndarray, " d"]:
        """The mean relation."""
        return self.of_users.mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A relation on a grid.

    Attributes:
      moments: of the relations.
      distances: `[u, i]` by what translates the user: "relation", its mean over all pairs
        ("mean"), over those of the user ("user_mean") or of the item ("item_mean"), or nothing
        ("zero"); and, if the model reads histories, the relation "without_one" item of them.
      has_history: `[u]`; whose history has an item.
      entropies: of attention weights by name, each relative to that of equal weights; the mean over
        pairs, where at least two entries count.
      memories: `[M, d]` by name.
    """

    moments: Moments
    distances: Mapping[str, Float64[np.ndarray, "u i"]]
    has_history: Bool[np.ndarray, "u"]
    entropies: Mapping[str, float]
    memories: Mapping[str, Float64[np.ndarray, "_ d"]]


class _Tile(NamedTuple):
    """Some users of a grid.

    Attributes:
      users: `[t, a]`.
      history: `rows [t, P, d]` and `mask [t, P]`.
      kept: `[t, P]`; the mask without the item that is removed.
    """

    users: Array
    history: History
    kept: Array


def measure(ranker: Ranker, history: Interactions, grid: Grid) -> Measured:
    """Measure a relation, some users at a time, with histories drawn as for ranking.

    Sums are of float64; relations are held for a tile of users only.

    Args:
      ranker: whose tables are replicated.
      history: what the relation reads of users.
    """
    model, params = ranker.model, ranker.replicated_points(history)
    users, items = params["user"][grid.users], params["item"][grid.items]
    rows = jnp.asarray(grid.users, jnp.int32)
    drawn = user_histories(ranker.draw, DeviceInteractions.of(history), rows)
    mask = np.asarray(drawn.mask)
    kept = jnp.asarray(_without_one(mask, grid.removed))
    size = min(len(users), pair_tile(len(items) * (1 + mask.shape[1]) * model.dim))
    # With precise products: differences between distances are what is looked for.
    with jax.default_matmul_precision("highest"):
        parts = []
        for first in range(0, len(users), size):
            # The last tile is filled up by its last user, so that one program serves all.
            places = np.minimum(np.arange(first, first + size), len(users) - 1)
            ids = drawn.items[places]
            tile = _Tile(
                users[places], History(params["item"][ids], drawn.mask[places]), kept[places]
            )
            found = _of_tile(model, params["relation"], tile, items)
            real = min(size, len(users) - first)
            parts.append(_summed(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], found)))
        moments = Moments(
            np.concatenate([part["of_users"] for part in parts]),
            sum(part["of_items"] for part in parts) / len(users),
            sum(part["norm"] for part in parts) / (len(users) * len(items)),
            sum(part["square"] for part in parts) / (len(users) * len(items)),
        )
        distances = {
            name: np.concatenate([part["distances"][name] for part in parts])
            for name in parts[0]["distances"]
        }
        instead = {
            "mean": moments.mean[None, None],
            "user_mean": moments.of_users[:, None],
            "item_mean": moments.of_items[None],
        }
        for name, relation in instead.items():
            given = jnp.asarray(relation, jnp.float32)
            measured = _by(model, params["relation"], given, users[:, None], items[None])
            distances[name] = np.asarray(measured, np.float64)
    memories = apply(model, params["relation"], "memories")
    return Measured(
        moments,
        distances,
        np.asarray(mask.any(axis=1)),
        _entropies([part["attentions"] for part in parts]),
        {name: np.asarray(memory, np.float64) for name, memory in memories.items()},
    )


@jax.jit
def _of_tile(
    model: Relation, params: Params, tile: _Tile, items: Float[Array, "i b"]
) -> dict[str, Any]:
    users = tile.users[:, None]
    pairs = jnp.broadcast_to(items, (len(users), *items.shape))
    history = tile.history.for_targets()

    def by(relation: Array) -> Array:
        return _by(model, params, relation, users, pairs)

    relation = apply(model, params, "__call__", users, pairs, history)
    distances = {"relation": by(relation), "zero": by(jnp.zeros_like(relation))}
    if model.uses_history:
        kept = history._replace(mask=tile.kept[:, None])
        distances["without_one"] = by(apply(model, params, "__call__", users, pairs, kept))
    attentions = apply(model, params, "attentions", users, pairs, history)
    return {
        "relation": jnp.broadcast_to(relation, (len(users), len(items), model.dim)),
        "distances": distances,
        "attentions": {name: relative_entropy(a, len(users)) for name, a in attentions.items()},
    }


@jax.jit
def _by(
    model: Relation,
    params: Params,
    relation: Float[Array, "*#b d"],
    users: Float[Array, "*#b a"],
    items: Float[Array, "*#b c"],
) -> Array:
    """Measure the distances of users that a given relation translates."""
    return apply(model, params, "distances_by", relation, users, items)


def _without_one(
    mask: Bool[np.ndarray, "u p"], removed: Float[np.ndarray, "u"]
) -> Bool[np.ndarray, "u p"]:
    """Remove one of the places that count, of each user that has some."""
    counts = mask.sum(axis=1)
    which = np.minimum((removed * counts).astype(int), np.maximum(counts - 1, 0))
    return mask & (np.cumsum(mask, axis=1) - 1 != which[:, None])


def relative_entropy(
    attention: Attention, users: int
) -> tuple[Float[Array, "users"], Float[Array, "users"]]:
    """Sum `-sum_k a_k log a_k / log n` over the rows of each user where `n >= 2` entries count.

    Args:
      attention: whose first axis is of users, or of size 1; weights are divided by their sum.

    Returns:
      The sums, and the numbers of rows.
    """
    weights, mask = jnp.broadcast_arrays(*attention)
    weights, mask = (jnp.broadcast_to(x, (users, *x.shape[1:])) for x in (weights, mask))
    weights = jnp.where(mask, weights, 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    shares = weights / jnp.where(total > 0, total, 1)
    terms = jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0)
    count = jnp.sum(mask, axis=-1)
    relative = -jnp.sum(terms, axis=-1) / jnp.log(jnp.maximum(count, 2).astype(jnp.float32))
    counts = (count >= 2).reshape(users, -1)
    sums = jnp.sum(jnp.where(counts, relative.reshape(users, -1), 0), axis=1)
    return sums, jnp.sum(counts, axis=1).astype(jnp.float32)


def _summed(found: dict[str, Any]) -> dict[str, Any]:
    """Sum what a tile has, in float64."""
    relation = found["relation"].astype(np.float64)
    squares = np.square(relation).sum(axis=-1)
    return {
        "of_users": relation.mean(axis=1),
        "of_items": relation.sum(axis=0),
        "norm": float(np.sqrt(squares).sum()),
        "square": float(squares.sum()),
        "distances": {name: x.astype(np.float64) for name, x in found["distances"].items()},
        "attentions": {
            name: (float(sums.sum(dtype=np.float64)), float(counts.sum(dtype=np.float64)))
            for name, (sums, counts) in found["attentions"].items()
        },
    }


def _entropies(parts: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """Average entropies over all rows; one that no row has is left out."""
    found = {}
    for name in parts[0]:
        total, count = (sum(part[name][n] for part in parts) for n in (0, 1))
        if count:
            found[name] = total / count
    return found

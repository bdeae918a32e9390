"""Say why a model ranks an item where it does for a user.

What a relation reads is shared out so that the parts add up to the distance: items of the history
by their Shapley values, which is defined for any relation, and slots of a memory by the gradient of
the distance along the relation.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Int

from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.ranking import Tables
from hlr_jax.functional import translated_distance
from hlr_jax.models.relation import Relation, apply
from hlr_jax.sampling.histories import user_histories
from hlr_jax.types import History, Params

# About as many orders in which items of a history are added, before they are reversed too.
_ORDERS = 128
# How columns that need a word are said.
_SAID = {"slot": "slot {}", "weight": "of weight {:.4f}"}
# Points along the relation at which the gradient is taken.
_POINTS = 64


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why an item is at its distance from a user. Negative contributions bring it nearer.

    Attributes:
      user, item: their ids.
      distance: `D(user + r, item)`; the score is minus it.
      without_relation: `D(user, item)`.
      without_history: the distance with an empty history.
      history: what the relation read of the user's items, and what each of them adds to the
        distance: columns `item`, `title` (if there are titles), `contribution`, the largest first.
        All of them add up to `distance - without_history`. No rows if the relation reads none.
      slots: columns `memory`, `slot`, `weight` and `contribution`, all of which add up to
        `distance - without_relation`. No rows for a relation without a memory.
      nearest: the user's items that are nearest to this one: columns `item`, `title`, `distance`.
    """

    user: int | str
    item: int | str
    distance: float
    without_relation: float
    without_history: float
    history: pl.DataFrame
    slots: pl.DataFrame
    nearest: pl.DataFrame

    @property
    def score(self) -> float:
        """Minus the distance."""
        return -self.distance

    def __str__(self) -> str:
        lines = [f"item {self.item} is {self.distance:.4f} from user {self.user}"]
        for name, base, table in (
            ("an empty history", self.without_history, self.history),
            ("no relation", self.without_relation, self.slots),
        ):
            if table.height:
                lines.append(f"with {name} it would be {base:.4f}; what changes that:")
                lines += [_line(row) for row in table.head(5).iter_rows(named=True)]
        if self.nearest.height:
            lines.append("of what the user has these are nearest to it:")
            lines += [_line(row) for row in self.nearest.head(5).iter_rows(named=True)]
        return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    *of_what, (_, share) = row.items()
    texts = [_SAID.get(name, "{}").format(value) for name, value in of_what]
    return "  " + "  ".join([*filter(None, texts), f"{share:+.4f}"])


@functools.partial(jax.jit, static_argnames="orders")
def history_contributions(
    model: Relation, relation: Params, pair: tuple[Array, Array], history: History, orders: int
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    """Share the change that a history makes to a distance out among its items.

    Items are added one after another, in some random orders; an item gets the mean of the changes
    where it is added: its Shapley value, sampled. In each order the changes add up to the whole, so
    the means do too. Orders are turned round by every number of places, and reversed, so that each
    item is added as early and as late as any other.

    Args:
      pair: points of a user `[u]` and an item `[i]`.
      history: `rows [P, d]` and `mask [P]`.

    Returns:
      `[P]` contributions, 0 where the mask is False; and the distance with an empty history.
    """
    user, item = pair
    places = len(history.mask)

    def distances(masks: Array) -> Array:
        count = len(masks)
        rows = jnp.broadcast_to(history.rows[None], (count, *history.rows.shape))
        users, items = jnp.tile(user[None], (count, 1)), jnp.tile(item[None], (count, 1))
        found = apply(model, relation, "distances", users, items, History(rows, masks))
        assert isinstance(found, jax.Array)
        return found

    def of_order(order: Array) -> Array:
        rank = jnp.zeros(places, jnp.int32).at[order].set(jnp.arange(places, dtype=jnp.int32))
        added = rank[None] < jnp.arange(places + 1, dtype=jnp.int32)[:, None]
        steps = jnp.diff(distances(added & history.mask[None]))
        return jnp.zeros(places).at[order].set(steps)

    empty = distances(jnp.zeros((1, places), bool))[0]
    if not places:
        return jnp.zeros(0), empty
    keys = jax.random.split(jax.random.key(0), orders)
    drawn = jax.vmap(lambda key: jax.random.permutation(key, places))(keys).astype(jnp.int32)
    turns = jnp.arange(places, dtype=jnp.int32)
    turned = drawn[:, (turns[:, None] + turns[None]) % places].reshape(-1, places)
    both = jnp.concatenate([turned, turned[:, ::-1]])
    return jnp.mean(jax.lax.map(of_order, both), axis=0), empty


@jax.jit
def slot_contributions(
    model: Relation, pair: tuple[Array, Array], parts: Float[Array, "m d"]
) -> Float[Array, " m"]:
    """Share the change that a relation makes to a distance out among its parts.

    Integrated gradients (Sundararajan et al., ICML 2017, eq. 1) from the user to where the relation
    leads. In Euclidean space, where a squared distance is a parabola, they are exact.

    Args:
      pair: points of a user `[d]` and an item `[d]`.
      parts: vectors that add up to the relation.
    """
    user, item = pair
    relation = jnp.sum(parts, axis=0)
    at = (jnp.arange(_POINTS, dtype=jnp.float32) + 0.5) / _POINTS

    def slope(share: Array) -> Array:
        return jax.grad(lambda r: translated_distance(model.geometry, user, r, item))(
            share * relation
        )

    return parts @ jnp.mean(jax.vmap(slope)(at), axis=0)


def slot_coordinates(
    model: Relation, relation: Params, pair: tuple[Array, Array], history: History
) -> dict[str, tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m d"]]]:
    """Find how much of each slot is in a relation: weights `[M]` and slots `[M, d]` by memory.

    None for a relation without a memory, or one of which no weights of whole slots add up to it.
    """
    arguments = (pair[0][None], pair[1][None], History(history.rows[None], history.mask[None]))
    weights = apply(model, relation, "slot_weights", *arguments)
    memories = apply(model, relation, "memories")
    if weights.keys() != memories.keys():
        return {}
    return {
        name: (np.asarray(weights[name][0], np.float64), np.asarray(memory))
        for name, memory in memories.items()
    }


def explain(
    tables: Tables, dataset: Dataset, known: Interactions, rows: tuple[int, int], k: int
) -> Explanation:
    """Explain the distance of a user and an item; see `Explanation`.

    Args:
      tables: points, of one device.
      known: what users have; `tables.history` is of the same.
      rows: of the user and the item.
      k: rows of each table at most; contributions that matter most come first.
    """
    user, item = rows
    model, params = tables.model, tables.params
    relation = params["relation"]
    pair = params["user"][user], params["item"][item]
    drawn = user_histories(tables.draw, tables.history, jnp.asarray([user], jnp.int32))
    mask = drawn.mask[0] & (drawn.items[0] != item)
    history = History(params["item"][drawn.items[0]], mask)
    with jax.default_matmul_precision("highest"):
        orders = max(2, _ORDERS // max(len(mask), 1))
        shares, empty = history_contributions(model, relation, pair, history, orders)
        arguments = (pair[0][None], pair[1][None], History(history.rows[None], mask[None]))
        distance = float(apply(model, relation, "distances", *arguments)[0])
        points = model.first(pair[0]), model.first(pair[1])
        alone = float(model.geometry.distance(*points))
        slots = _slots(model, points, slot_coordinates(model, relation, pair, history))
    counts = np.flatnonzero(np.asarray(mask))
    of_items = {"contribution": np.asarray(shares)[counts]}
    return Explanation(
        user=dataset.user_ids[user].item(),
        item=dataset.item_ids[item].item(),
        distance=distance,
        without_relation=alone,
        without_history=float(empty),
        history=_most(_listed(dataset, np.asarray(drawn.items[0])[counts], of_items), k),
        slots=_most(slots, k),
        nearest=_nearest(tables, dataset, known.of(user), item).head(k),
    )


def _slots(
    model: Relation,
    points: tuple[Array, Array],
    coordinates: Mapping[str, tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m d"]]],
) -> pl.DataFrame:
    weights = np.concatenate([np.zeros(0), *(w for w, _ in coordinates.values())])
    parts = np.concatenate(
        [np.zeros((0, model.dim)), *(w[:, None] * slots for w, slots in coordinates.values())]
    )
    found = np.zeros(0, np.float32)
    if len(parts):
        found = np.asarray(slot_contributions(model, points, jnp.asarray(parts, jnp.float32)))
    return pl.DataFrame(
        {
            "memory": [name for name, (w, _) in coordinates.items() for _ in w],
            "slot": [slot for w, _ in coordinates.values() for slot in range(len(w))],
            "weight": weights.astype(np.float32),
            "contribution": found,
        },
        schema_overrides={"memory": pl.String, "slot": pl.Int64},
    )


def _nearest(
    tables: Tables, dataset: Dataset, items: Int[np.ndarray, "n"], item: int
) -> pl.DataFrame:
    """List items of a user, nearest to another item first."""
    items, model = items[items != item], tables.model
    points = model.first(tables.params["item"])
    distances = np.asarray(model.geometry.pairwise(points[items], points[item][None]))[:, 0]
    return _listed(dataset, items, {"distance": distances}).sort("distance", maintain_order=True)


def _listed(
    dataset: Dataset, items: Int[np.ndarray, "n"], columns: Mapping[str, np.ndarray]
) -> pl.DataFrame:
    named = {name: of_all[items] for name, of_all in dataset.item_names().items()}
    return pl.DataFrame(named | dict(columns))


def _most(table: pl.DataFrame, k: int) -> pl.DataFrame:
    """Take the rows that contribute most, in either direction."""
    return table.sort(pl.col("contribution").abs(), descending=True, maintain_order=True).head(k)

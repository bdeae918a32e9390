"""The contract of a relation: it ranks by the distances that it is trained on."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hlr_jax.functional.geometry import GEOMETRIES, Geometry
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models.relation import Relation, apply, embed
from hlr_jax.testing.expect import (
    Expect,
    as_arrays,
    check_gradient,
    check_traced,
    instance,
    random_rows,
    with_option,
)
from hlr_jax.training.objective import Objective, triplet_distances
from hlr_jax.training.state import Sizes, init_params
from hlr_jax.types import (
    History,
    HistoryIds,
    Params,
    RowIds,
    SharedNegatives,
    TripletBatch,
)

# Histories of all users together hold more items than the catalogue, those of two users fewer.
_USERS, _ITEMS, _PLACES, _DIM = 4, 10, 4, 6
_OWN_ITEMS = np.array([[5, 7, 3], [2, 0, 9], [4, 8, 1], [9, 3, 2]])
_SHARED_ITEMS = np.array([7, 3, 7, 0, 5])
# A full, two short and an empty history. No user has an item that it is compared with.
_HISTORY = np.array([[1, 2, 4, 6], [5, 0, 0, 0], [0, 0, 0, 0], [0, 6, 8, 0]])
_MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
# Other items at masked places.
_DIRTY = np.where(_MASK, _HISTORY, 9)


class _Rows(NamedTuple):
    """What a relation is called with.

    Attributes:
      params: its own.
      users, items: own vectors, in rows of tables.
      of_users, of_items: means of neighbours, which stand behind these; or no numbers.
    """

    params: Params
    users: Any
    items: Any
    of_users: Any
    of_items: Any

    def points(self, model: Relation) -> tuple[Array, Array]:
        """What the model reads of each user and item."""
        users = jnp.concatenate([self.users, self.of_users], axis=1)
        items = jnp.concatenate([self.items, self.of_items], axis=1)
        return embed(model, users, model.user_width), embed(model, items, model.dim)


def check_relation(
    relation: Relation | type[Relation],
    geometries: tuple[Geometry, ...] | None = None,
    largest: float = 100.0,
) -> None:
    """Raise AssertionError where a relation breaks its contract.

    - In every geometry, `distances` of `[U, 1]` users and `[1, I]` items, `pairwise_distances`,
      minus `scores`, and what training measures to own and shared negatives, with or without
      `copy_relation`, are `D(user + r, item)`, where `r [d]` is the relation of a single user to
      a single item, with full, short and empty histories. So are `target_distances` and
      `known_distances`, each item left out of its own history.
    - What stands at masked places of a history changes nothing.
    - Gradients are those of finite differences, and finite with rows that are zero or large.
    - `slot_weights` of the memories, times their slots, add up to the relation.
    - `penalty` is a finite number for each row of a batch; `features_penalty`, one for all items.
    - Float options are traced: another value needs no compilation.

    Args:
      relation: with its options; a class stands for the default ones, with `dim=6`.
      geometries: those to measure in; all that are registered, if they are left out.
      largest: by what rows are multiplied to be large.
    """
    made: Relation = instance(relation, dim=_DIM)
    if geometries is None:
        geometries = tuple(GEOMETRIES.build(name, {}) for name in GEOMETRIES.names())
    reads_rows = made.user_width > 0 or not made.uses_neighbours
    Expect(made).that(reads_rows, "users have neighbours, but no rows; give them a user_width")
    with Expect(made).traceable():
        _check(made, geometries, largest)


def _check(made: Relation, geometries: tuple[Geometry, ...], largest: float) -> None:
    rows = _random_rows(made)
    Expect(made).finite(rows.params, "new parameters")
    check_traced(Expect(made), made, lambda model: _traced(model, rows))
    if made.uses_features:
        _check_features(Expect(made), made)
    _check_slot_weights(Expect(made), made, rows)
    differentiated = set()
    for geometry in geometries:
        model: Relation = with_option(made, "geometry", geometry)
        # By the one way that Euclidean geometries go, and by the one of all others.
        is_new = geometry.is_euclidean not in differentiated
        _check_distances(Expect(model), model, rows, is_new)
        if is_new:
            differentiated.add(geometry.is_euclidean)
            _check_gradients(Expect(model), model, rows, largest)
    _check_masks(Expect(made), made, rows)


def _random_rows(model: Relation) -> _Rows:
    new = jax.jit(lambda key: init_params(key, model, Sizes(_USERS, _ITEMS)))
    params = new(jax.random.key(0))["relation"]
    extra = model.dim if model.uses_neighbours else 0
    return _Rows(
        params,
        as_arrays(random_rows(0, _USERS, model.user_width)),
        as_arrays(random_rows(1, _ITEMS, model.dim)),
        as_arrays(random_rows(2, _USERS, extra)),
        as_arrays(random_rows(3, _ITEMS, extra)),
    )


def _history_ids(model: Relation, items: np.ndarray = _HISTORY) -> HistoryIds:
    if not model.uses_history:
        return HistoryIds.empty(_USERS)
    return HistoryIds(jnp.asarray(items, jnp.int32), jnp.asarray(_MASK))


# ---------------------------------------------------------------------------------------------
# Distances.


def _check_distances(expect: Expect, model: Relation, rows: _Rows, also_few: bool) -> None:
    """Compare everything with the definition.

    Args:
      also_few: score some users and items alone too, which may go another way.
    """

    @jax.jit
    def everything(model: Relation, rows: _Rows) -> Any:
        return _by_definition(model, rows), _by_library(model, rows, also_few)

    (relation, *distances), found = everything(model, rows)
    row, (every, copied, left_out) = np.arange(_USERS)[:, None], map(np.asarray, distances)
    expect.shape(relation, (_USERS, _ITEMS, model.dim), "the relation of each user to each item")
    expect.finite(relation, "the relation of each user to each item")
    of_definition = "D(user + r, item) pair by pair"
    for name, wanted in {
        "distances": every,
        "pairwise_distances": every,
        "minus scores": every,
        "target_distances": left_out[:, :7],
        "known_distances": left_out,
        "minus scores of some users and items": every[:2, 3:7],
        "training's distances to own items": every[row, _OWN_ITEMS],
        "training's distances to shared items": every[:, _SHARED_ITEMS],
        "training's distances to own items by a copied relation": copied[row, _OWN_ITEMS],
        "training's distances to shared items by a copied relation": copied[:, _SHARED_ITEMS],
    }.items():
        if name not in found:
            continue
        expect.shape(found[name], wanted.shape, name)
        expect.close(found[name], wanted, f"{name}, against {of_definition}", 2e-5)
    expect.shape(found["penalty"], (_USERS,), "penalty")
    expect.finite(found["penalty"], "penalty")


def _by_definition(model: Relation, rows: _Rows) -> tuple[Array, Array, Array, Array]:
    """The relation of each pair, by that of a single user to a single item, and three distances.

    The second is by the relation to the user's positive, the third with the item left out of its
    own history.
    """
    users, items = rows.points(model)
    ids = _history_ids(model)

    def of_pair(user: Array, item: Array, places: Array, mask: Array) -> tuple[Array, Array]:
        history = History(items[places], mask)
        relation = apply(model, rows.params, "__call__", user, item, history)
        moved = model.first(user) + relation
        return relation, model.geometry.distance(moved, model.first(item))

    of_user = jax.vmap(of_pair, (None, 0, None, None))
    relation, distances = jax.vmap(of_user, (0, None, 0, 0))(users, items, *ids)
    others = ids.mask[:, None] & (ids.items[:, None] != jnp.arange(_ITEMS)[None, :, None])
    of_user = jax.vmap(of_pair, (None, 0, None, 0))
    left_out = jax.vmap(of_user, (0, None, 0, 0))(users, items, ids.items, others)[1]
    moved = model.first(users) + relation[jnp.arange(_USERS), _OWN_ITEMS[:, 0]]
    copied = model.geometry.distance(moved[:, None], model.first(items)[None])
    return relation, distances, copied, left_out


def _by_library(model: Relation, rows: _Rows, also_few: bool) -> dict[str, Array]:
    """The same by every path that training and ranking take."""
    users, items = rows.points(model)
    ids = _history_ids(model)
    history = History(items[ids.items], ids.mask)

    def of(method: str, *arguments: Any) -> Array:
        return apply(model, rows.params, method, *arguments)

    known = apply(model, rows.params, "known_of_items", items, ids)
    pairs = users[:, None], items[None], history.for_targets()
    found = {
        "distances": of("distances", *pairs),
        "pairwise_distances": of("pairwise_distances", users, items, history),
        "minus scores": -of("scores", users, items, items, ids),
        "target_distances": of("target_distances", users, items, ids, 7),
        "known_distances": of("known_distances", users, items, known),
    }
    if also_few:
        few = HistoryIds(ids.items[:2], ids.mask[:2])
        scores = of("scores", users[:2], items[3:7], items, few)
        found["minus scores of some users and items"] = -scores
    points = RowIds(users, items[_OWN_ITEMS], items[ids.items], items[_SHARED_ITEMS])
    for end, copies in (("", False), (" by a copied relation", True)):
        objective = Objective(model, Hinge(), num_items=_ITEMS, copy_relation=copies)
        of_own, shared = triplet_distances(objective, rows.params, points, _batch(ids))
        found |= {
            f"training's distances to own items{end}": of_own,
            f"training's distances to shared items{end}": shared.values,
        }
    own = found["training's distances to own items"]
    return found | {"penalty": of("penalty", users[:, None], items[_OWN_ITEMS], own)}


def _batch(history: HistoryIds) -> TripletBatch:
    """Positives with negatives that they share."""
    users, positives = jnp.arange(_USERS), jnp.asarray(_OWN_ITEMS[:, 0], jnp.int32)
    every = jnp.ones((_USERS, len(_SHARED_ITEMS)), bool)
    negatives = SharedNegatives(jnp.asarray(_SHARED_ITEMS, jnp.int32), every)
    return TripletBatch(users, positives, negatives, history, jnp.ones(_USERS))


# ---------------------------------------------------------------------------------------------
# Gradients.


def _check_gradients(expect: Expect, model: Relation, rows: _Rows, largest: float) -> None:
    """In double precision; of `distances`, and of others, which must agree with those.

    These are `pairwise_distances`, and of users alone `known_distances`.
    """
    with jax.enable_x64(True):
        rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), rows)
        weights = random_rows(4, _USERS, _ITEMS, scale=1.0)

        def totals(own: Any, rows: _Rows) -> tuple[Array, Array]:
            rows = rows._replace(params=own[0], users=own[1], items=own[2])
            users, items = rows.points(model)
            ids = _history_ids(model)
            history = History(items[ids.items], ids.mask)
            pairs = users[:, None], items[None], history.for_targets()
            distances = apply(model, rows.params, "distances", *pairs)
            pairwise = apply(model, rows.params, "pairwise_distances", users, items, history)
            return jnp.sum(distances * weights), jnp.sum(pairwise * weights)

        @jax.jit
        def program(own: Any) -> tuple[Array, Any, Any]:
            values, pull = jax.vjp(lambda own: totals(own, rows), own)
            one, zero = jnp.ones(()), jnp.zeros(())
            return values[0], pull((one, zero))[0], pull((zero, one))[0]

        def gradients(own: Any) -> tuple[Any, Any]:
            return program(own)[1:]

        @jax.jit
        def of_users(users: Any) -> tuple[Any, Any]:
            def total(users: Array, is_known: bool) -> Array:
                users, items = rows._replace(users=users).points(model)
                ids, of = _history_ids(model), functools.partial(apply, model, rows.params)
                if is_known:
                    known = of("known_of_items", items, ids)
                    return jnp.sum(of("known_distances", users, items, known) * weights)
                return jnp.sum(of("target_distances", users, items, ids, _ITEMS) * weights)

            return jax.grad(total)(users, True), jax.grad(total)(users, False)

        own = rows.params, rows.users, rows.items
        found, wanted = of_users(own[1])
        expect.close(found, wanted, "the gradient of known_distances by users", 1e-7)
        definition, pairwise = gradients(own)
        expect.close(pairwise, definition, "the gradient of pairwise_distances", 1e-7)
        check_gradient(expect, lambda own: program(own)[0], own, "distances", definition)
        special = (
            own[0],
            own[1].at[0].set(0).at[1, : model.dim].set(own[2][1]),
            own[2].at[0].set(0),
        )
        expect.finite(gradients(special), "the gradient with zero rows and equal ones")
        for scale in (0.0, largest):
            scaled = jax.tree.map(lambda x, scale=scale: scale * x, own)
            expect.finite(gradients(scaled), f"the gradient of rows and parameters times {scale:g}")


# ---------------------------------------------------------------------------------------------
# Features, masks and traced options.


def _check_features(expect: Expect, model: Relation) -> None:
    """One finite number with a finite gradient; also of items without features."""
    features = as_arrays(random_rows(7, _ITEMS, 3)).at[0].set(0)
    items = embed(model, as_arrays(random_rows(1, _ITEMS, model.dim)), model.dim)
    new = jax.jit(lambda key: init_params(key, model, Sizes(_USERS, _ITEMS, features.shape[1])))
    params = new(jax.random.key(0))["relation"]

    @jax.jit
    def value_and_gradient(params: Params, items: Array) -> Any:
        def penalty(params: Params, items: Array) -> Array:
            return apply(model, params, "features_penalty", items, features)

        return jax.value_and_grad(penalty, (0, 1))(params, items)

    value, gradient = value_and_gradient(params, items)
    expect.shape(value, (), "features_penalty")
    expect.finite((value, gradient), "features_penalty and its gradient")


def _check_masks(expect: Expect, model: Relation, rows: _Rows) -> None:
    """Other rows at masked places, and other items, change nothing."""
    users, items = rows.points(model)
    if not model.uses_history:
        empty, full = History.empty(users), History(items[_HISTORY], jnp.asarray(_MASK))
        of_history = [
            apply(model, rows.params, "__call__", users[:, None], items[None], x.for_targets())
            for x in (empty, full)
        ]
        same = np.array_equal(*of_history)
        expect.that(same, "it reads the history; write uses_history: ClassVar[bool] = True")
        return
    mask, weights = jnp.asarray(_MASK), random_rows(5, _USERS, _ITEMS, scale=1.0)

    @jax.jit
    def value_and_gradient(history_rows: Array) -> Any:
        def total(params: Params, users: Array, items: Array, history_rows: Array) -> Any:
            history = History(history_rows, mask)
            pairs = users[:, None], items[None], history.for_targets()
            distances = apply(model, params, "distances", *pairs)
            return jnp.sum(distances * as_arrays(weights)), distances

        of_all = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)
        return of_all(rows.params, users, items, history_rows)

    clean = items[_HISTORY]
    dirty = jnp.where(mask[..., None], clean, 1e6 * as_arrays(random_rows(6, *clean.shape)))
    (_, wanted), gradient = value_and_gradient(clean)
    (_, found), other_gradient = value_and_gradient(dirty)
    expect.close(found, wanted, "with other rows at masked places of histories, distances", 1e-6)
    what = "with other rows at masked places of histories, the gradient"
    expect.close(other_gradient, gradient, what, 1e-6)
    of_masked = np.asarray(other_gradient[3])[~_MASK]
    expect.that(not of_masked.any(), "the gradient of a masked row of a history is not 0")

    @jax.jit
    def scores(ids: HistoryIds) -> Array:
        return apply(model, rows.params, "scores", users, items, items, ids)

    found, wanted = scores(_history_ids(model, _DIRTY)), scores(_history_ids(model))
    expect.close(found, wanted, "with other items at masked places of histories, scores", 1e-6)


def _check_slot_weights(expect: Expect, model: Relation, rows: _Rows) -> None:
    """Those of the memories themselves, not of parts of them, are a relation's coordinates."""
    users, items = rows.points(model)
    ids = _history_ids(model)
    pairs = users[:, None], items[None], History(items[ids.items], ids.mask).for_targets()
    weights, memories, relation = (
        apply(model, rows.params, name, *arguments)
        for name, arguments in (("slot_weights", pairs), ("memories", ()), ("__call__", pairs))
    )
    if memories and weights.keys() == memories.keys():
        added = sum(weights[name] @ memory for name, memory in memories.items())
        what = "slot_weights times the slots of memories, against the relation"
        found, wanted = jnp.broadcast_arrays(added, relation)
        expect.close(found, wanted, what)


def _traced(model: Relation, rows: _Rows) -> tuple[Array, Array, Any]:
    """What depends on a model's options, for a few users and items."""
    users, items = rows.points(model)
    ids = _history_ids(model)
    history = History(items[ids.items], ids.mask)
    pairs = users[:, None], items[_OWN_ITEMS], history.for_targets()
    distances = apply(model, rows.params, "distances", *pairs)
    penalty = apply(model, rows.params, "penalty", users[:, None], items[_OWN_ITEMS], distances)
    return distances, penalty, model.project(rows.params)

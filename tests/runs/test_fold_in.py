"""Rows of new users and new items are where float64 loops and SciPy find the loss least.

And everybody is answered by them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.optimize
from oracles import fold_in
from oracles.arrays import Array
from support.untrained import OWN_MODELS, untrained

from hlr_jax.runs import new_items
from hlr_jax.runs.new_users import TEMPERATURE
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.histories import user_histories
from hlr_jax.sampling.sources import DeviceInteractions

# A new item and who has it; new users and what they have, of whom the last have much and little.
ITEM, OWNERS = 99, [1, 4, 9, 12]
USER, MUCH, LITTLE = 50, 60, 61
USERS = {USER: [1, 7, 10, 16, 19, 25], MUCH: [*range(8, 15)], LITTLE: [2]}


@functools.cache
def folded(name: str) -> tuple[Recommender, Recommender, Recommender]:
    """A model; with the new item; and with the new users too, one of whom has the item."""
    old = untrained(name)
    users = [(user, item) for user, items in USERS.items() for item in items]
    if name == "cmlf":
        return old, old, old.fold_in(frame(users))
    owners = [(user, ITEM) for user in OWNERS]
    pairs = new_items.Pairs(*np.array(owners).T)
    return old, old._with_items(pairs), old.fold_in(frame([*owners, *users, (USER, ITEM)]))


def frame(pairs: list[tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["user", "item"])


class Measured:
    """Distances by float64 loops, of one model with its parameters."""

    def __init__(self, model: Recommender) -> None:
        self.name, self.options = model.config.model.name, dict(model.config.model.options)
        self.params = {name: as_float64(tree) for name, tree in model.params.items()}
        known = model.everything
        pairs = zip(known.users.tolist(), known.items.tolist(), strict=True)
        self.of_users, self.of_items = np.zeros((2, 0))
        if self.name == "transcf":
            self.of_users, self.of_items = oracles.transcf_neighbours(self.params, pairs)
        else:
            self.relation = oracles.relation_function(
                self.params["relation"], self.name, self.options
            )

    def distance(self, user: Any, item: Any, history: list[int]) -> float:
        """Of points, which a TransCF has pairs of: rows, and means of neighbours."""
        if self.name == "transcf":
            (u, of_user), (i, of_item) = user, item
            return oracles.squared_distance(u + of_user * of_item, i)
        rows = oracles.history_vectors(self.params["item"], history)
        first = oracles.first_vector(user, len(item))
        return oracles.squared_distance(first + self.relation(user, item, rows), item)

    def user(self, row: int) -> Any:
        return self._of("user", self.of_users, row)

    def item(self, row: int) -> Any:
        return self._of("item", self.of_items, row)

    def _of(self, name: str, means: Array, row: int) -> Any:
        own = self.params[name][row]
        return (own, means[row]) if self.name == "transcf" else own

    def to_items(self, user: Any, history: list[int]) -> Array:
        """Distances to all items, each left out of its own history."""
        items = range(len(self.params["item"]))
        found = [self.distance(user, self.item(i), fold_in.without(history, i)) for i in items]
        return np.array(found)

    def penalty(self, user: Any, item: Any, distance: float) -> float:
        """What TransCF and DPCML add for a positive."""
        if self.name == "transcf":
            pull = oracles.squared_distance(*user) + oracles.squared_distance(*item)
            return 0.1 * pull + 0.1 * distance
        if self.name == "dpcml":
            params = {"user": user[None], "item": item[None]}
            return oracles.dpcml_penalty(params, {"users": [0]}, self.options)
        return 0.0


def as_float64(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: as_float64(x) for name, x in tree.items()}
    return np.asarray(tree, np.float64)


def histories(model: Recommender, known: Any) -> list[list[int]]:
    rows = jnp.arange(known.num_users, dtype=jnp.int32)
    items, mask = user_histories(model.ranker.draw, DeviceInteractions.of(known), rows)
    return [x[m].tolist() for x, m in zip(np.asarray(items), np.asarray(mask), strict=True)]


def assert_least(loss: Callable[[Array], float], row: Any, start: Array) -> None:
    """No row nearby is much better, as far as SciPy finds one."""

    def inside(x: Array) -> float:
        return loss(np.concatenate([oracles.project(v, 1.0) for v in x.reshape(-1, 6)]))

    row = np.asarray(row, np.float64)
    near, options = [(x - 0.1, x + 0.1) for x in row], {"maxiter": 6}
    found = scipy.optimize.minimize(inside, row, method="L-BFGS-B", bounds=near, options=options)
    gained = inside(start) - found.fun
    assert inside(row) - found.fun < 0.01 * gained + 1e-4


# A model of features takes no new items; one that reads an order is fitted otherwise.
@pytest.mark.parametrize("name", [n for n in OWN_MODELS if n not in ("cmlf", "recent_items")])
def test_rows_are_where_the_loss_is_least(name):
    old, middle, new = folded(name)

    # The new item, against everything that was known before.
    measured, train = Measured(old), old.dataset.train
    read, everybody = histories(old, train), range(train.num_users)
    distances = [measured.to_items(measured.user(u), read[u]) for u in everybody]
    has = [train.of(u).tolist() for u in everybody]
    owners_mean = fold_in.mean_of_rows(measured.params["user"][:, :6], OWNERS)

    def of_item(row: Array) -> float:
        item = (row, owners_mean) if name == "transcf" else row
        to_item = [measured.distance(measured.user(u), item, read[u]) for u in everybody]
        found = fold_in.item_loss(to_item, distances, has, OWNERS, TEMPERATURE)
        return found + sum(measured.penalty(measured.user(u), item, to_item[u]) for u in OWNERS)

    start = owners_mean if owners_mean.size else np.zeros(6)
    assert_least(of_item, new.params["item"][-1], start)
    if name == "items_only":
        return

    # The new user, who has the new item too.
    measured, row = Measured(middle), int(new.dataset.user_index(USER))
    mine, read = new.dataset.train.of(row).tolist(), histories(new, new.dataset.train)[row]
    mean = fold_in.mean_of_rows(measured.params["item"], mine)

    def of_user(vector: Array) -> float:
        user = (vector, mean) if name == "transcf" else vector
        to_items = measured.to_items(user, read)
        penalties = [measured.penalty(user, measured.item(i), float(to_items[i])) for i in mine]
        return fold_in.user_loss(to_items, mine, TEMPERATURE) + float(np.mean(penalties))

    fitted = np.asarray(new.params["user"][row])
    assert_least(of_user, fitted, np.tile(mean, len(fitted) // 6))


@pytest.mark.parametrize("name", OWN_MODELS)
def test_only_new_rows_are_fitted_and_everybody_is_answered(name):
    old, middle, new = folded(name)
    is_new = [] if name == "cmlf" else [ITEM]
    assert new.dataset.user_ids.tolist() == [*range(24), *USERS]
    assert new.dataset.item_ids.tolist() == [*range(30), *is_new]
    np.testing.assert_array_equal(new.params["item"][:30], old.params["item"])
    others = np.setdiff1d(np.arange(24), OWNERS if is_new else [])
    np.testing.assert_array_equal(new.params["user"][others], old.params["user"][others])
    assert new.dataset.valid.counts.tolist() == [*old.dataset.valid.counts, 0, 0, 0]
    if not old.model.uses_neighbours:  # An item's users changed.
        top = new.recommend([3], 8, exclude=[ITEM])["item"].to_list()
        assert top == old.recommend([3], 8)["item"].to_list()
    for user, items in USERS.items():
        mine = new.recommend([user], 8)
        has = [*items, *is_new] if user == USER else items
        assert not {*has} & {*mine["item"]}
        if user != LITTLE and not old.model.uses_neighbours:
            alone = middle.recommend_for(has, 8)
            np.testing.assert_allclose(alone["score"], mine["score"], rtol=1e-3, atol=1e-4)
    seen = USERS[MUCH]
    every = middle.recommend_for(seen, 30, filter_seen=False, exclude=[4])
    assert sorted(every["item"]) == [item for item in [*range(30), *is_new] if item != 4]
    assert middle.recommend_for(seen, 9, items=[4, 5, *seen])["item"].len() == 2
    for item in is_new:
        assert item in new.recommend([LITTLE], 31)["item"]
        assert new.similar_items([item], 3)["similar"].len() == 3

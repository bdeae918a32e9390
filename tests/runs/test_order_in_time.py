"""What is asked of a trained model that reads the last items of a user."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from support.small_runs import with_times
from support.untrained import untrained

from hlr_jax import InputError, Interactions
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training.fold_in import fit_users


def of_last_items() -> Recommender:
    """A user without a row of its own stands a little beyond its last item."""
    found = untrained("recent_items")
    own = {"weight": jnp.asarray(1.1), "logit": jnp.asarray(-9.0)}
    params = found.params | {"user": jnp.zeros_like(found.params["user"]), "relation": own}
    return Recommender.of(found.config, found.dataset, found.model, params)


def nearest_to(found: Recommender, item: int, others: list[int]) -> int:
    """The item nearest to where a user stands whose last item this is."""
    table = np.asarray(found.params["item"], np.float64)
    distances = np.sum((1.1 * table[item] - table) ** 2, axis=1)
    distances[others] = np.inf
    return int(np.argmin(distances))


def test_the_last_item_decides_in_whatever_way_it_is_known():
    found = of_last_items()
    everything = found.everything
    for user in range(6):
        items = everything.of(user)
        last = int(items[np.argmax(everything.times[slice(*everything.offsets[user : user + 2])])])
        best = nearest_to(found, last, items.tolist())
        assert found.recommend([user], 1)["item"].to_list() == [best]
    # What somebody has is given with the oldest first.
    for history in ([3, 8, 20], [20, 8, 3]):
        best = nearest_to(found, history[-1], history)
        for seen in ({5: history}, {"user": [5, 5, 5], "item": history}):
            assert found.recommend([5], 1, seen=seen)["item"].to_list() == [best]


def test_what_is_added_is_later_than_all_that_is_known():
    found = of_last_items()
    new = [item for item in range(30) if item not in found.everything.of(2)][:2]
    for items in (new, new[::-1]):
        folded = found.fold_in({"user": [2, 2], "item": items})
        train = folded.dataset.train
        row = slice(*train.offsets[2:4])
        order = train.items[row][np.argsort(train.times[row])]
        assert order[-2:].tolist() == items
        before = [item for item in order.tolist() if item not in items]
        known = found.dataset.train
        assert before == known.of(2)[np.argsort(known.times[slice(*known.offsets[2:4])])].tolist()


def test_somebody_new_is_its_row_away_from_what_came_last():
    found = of_last_items()
    table = np.asarray(found.params["item"], np.float64)
    for history in ([3, 8, 20], [20, 8, 3]):
        listed = found.recommend_for(history, 27)
        order = np.arange(3, dtype=np.int32)
        known = Interactions.from_pairs(np.zeros(3), np.array(history), 1, 30, order)
        row = np.asarray(fit_users(found._fitting, known).rows[0], np.float64)
        items = listed["item"].to_numpy()
        expected = -np.sum((row + 1.1 * table[history[-1]] - table[items]) ** 2, axis=1)
        np.testing.assert_allclose(listed["score"], expected, rtol=1e-3, atol=1e-3)


def test_other_data_without_times_are_refused():
    found = of_last_items()
    rows = {name: getattr(found.dataset, name) for name in ("train", "valid", "test")}
    without = {n: dataclasses.replace(x, times=np.zeros(0, np.int32)) for n, x in rows.items()}
    dataset = dataclasses.replace(with_times(found.dataset), **without)
    other = Recommender.of(found.config, dataset, found.model, found.params)
    with pytest.raises(InputError, match=r"config\.data\.keep_times=True"):
        other.recommend([1], 1)

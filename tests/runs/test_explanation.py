"""Explanations: parts that add up to the distance, and are what they are called."""

import itertools

import numpy as np
import pytest
from support.untrained import OWN_MODELS, untrained
from table_runs import hand_made

from hlr_jax import InputError

EVERYTHING = 30


@pytest.mark.parametrize("name", OWN_MODELS)
def test_contributions_add_up_to_the_distance(name):
    found = untrained(name)
    for user, item in ((3, 7), (4, 4)):
        explained = found.explain(user, item, EVERYTHING)
        assert explained.score == pytest.approx(float(found.score(user, item)[0]), rel=1e-4)
        of_history = explained.history["contribution"].sum()
        change = explained.distance - explained.without_history
        assert of_history == pytest.approx(change, abs=2e-5)
        if found.model.uses_history:
            mine = set(explained.history["item"].to_list())
            assert mine
            assert mine <= set(found.everything.of(user).tolist()) - {item}
        else:
            assert explained.history.height == 0
        if explained.slots.height:
            change = explained.distance - explained.without_relation
            assert explained.slots["contribution"].sum() == pytest.approx(change, abs=2e-5)
        assert (explained.slots.height > 0) == (name in ("lrml", "hlr", "hlrpp"))


@pytest.mark.parametrize("name", ["hlr", "history_mean"])
def test_shares_of_a_history_are_shapley_values(name):
    """By definition, over all orders; those drawn differ from it by chance alone."""
    found = untrained(name)
    explained = found.explain(3, 7, EVERYTHING)
    items = explained.history["item"].to_list()[:4]
    # Removed items are told apart by what is seen; the others stay away throughout.
    worth = {}
    for size in range(len(items) + 1):
        for chosen in itertools.combinations(items, size):
            lists = found.recommend([3], 1, items=[7], filter_seen=False, seen={3: [*chosen]})
            worth[frozenset(chosen)] = -lists["score"][0]
    exact = {}
    for item in items:
        orders = list(itertools.permutations(items))
        moves = [
            worth[frozenset(order[: order.index(item) + 1])]
            - worth[frozenset(order[: order.index(item)])]
            for order in orders
        ]
        exact[item] = float(np.mean(moves))
    assert sum(exact.values()) == pytest.approx(
        worth[frozenset(items)] - worth[frozenset()], abs=1e-5
    )
    if len(explained.history) == len(items):
        for item, share in explained.history.select("item", "contribution").iter_rows():
            assert share == pytest.approx(exact[item], abs=0.05 * max(map(abs, exact.values())))


def test_nearest_items_of_a_user_stand_for_a_model_without_relation():
    explained = hand_made().explain(0, 3, 2)
    assert (explained.user, explained.item) == (0, 3)
    assert explained.distance == explained.without_relation == pytest.approx(0.09)
    assert explained.nearest["item"].to_list() == [2, 1]
    np.testing.assert_allclose(explained.nearest["distance"], [0.01, 0.04], rtol=1e-4)
    assert str(explained).splitlines() == [
        "item 3 is 0.0900 from user 0",
        "of what the user has these are nearest to it:",
        "  2  +0.0100",
        "  1  +0.0400",
    ]


def test_the_largest_contributions_come_first():
    found = untrained("hlr")
    everything, few = found.explain(3, 7, EVERYTHING), found.explain(3, 7, 2)
    sizes = everything.history["contribution"].abs()
    assert sizes.is_sorted(descending=True)
    assert few.history.equals(everything.history.head(2))
    assert "with an empty history it would be" in str(few)
    assert "with no relation it would be" in str(few)


def test_what_cannot_be_explained_is_one_clear_error():
    found = hand_made()
    with pytest.raises(InputError, match="user 'x' is not in"):
        found.explain("x", 3)
    with pytest.raises(InputError, match="item: item 99 is not in"):
        found.explain(0, 99)
    with pytest.raises(InputError, match="k=0: use 1 or more"):
        found.explain(0, 3, 0)

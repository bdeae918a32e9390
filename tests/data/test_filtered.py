"""What filters leave out is counted, said, and kept with prepared data."""

import numpy as np
import pytest

from hlr_jax import Dataset
from hlr_jax.data import arrays
from hlr_jax.data.filtered import Filtered

# The last four rows: a low rating, a pair for the second time, a rare user, a rare item.
FRAME = {
    "user": [1, 1, 1, 2, 2, 2, 3, 3, 1, 1, 4, 3],
    "item": [1, 2, 3, 1, 2, 4, 3, 4, 4, 1, 1, 5],
    "rating": [5, 5, 4, 5, 4, 4, 4, 5, 2, 4, 5, 5],
}


def test_each_filter_counts_what_it_leaves_out():
    data = Dataset.from_frame(FRAME, rating="rating", min_rating=4, core=2, split=None)
    assert data.filtered._asdict() == {
        "read": 12,
        "low": 1,
        "repeated": 1,
        "rare": 2,
        "rare_users": 1,
        "rare_items": 1,
        "unknown": 0,
        "full": 0,
        "full_users": 0,
        "core": 2,
        "item_core": 2,
        "min_rating": 4.0,
    }
    assert len(data.train) == 12 - 4
    assert str(data.filtered) == (
        "of 12 interactions read: 1 rated below 4, 1 repeated, 2 of users and items with fewer "
        "than 2 (1 users, 1 items)"
    )


def test_nothing_is_said_of_what_nobody_knows():
    assert str(Filtered()) == ""
    assert str(Filtered(7)) == "of 7 interactions read: nothing"
    two = Filtered(9, rare=2, core=1, item_core=3)
    assert "of users with fewer than 1, items with fewer than 3" in str(two)


def test_interactions_of_unknown_items_count_where_users_are_held_out():
    rng = np.random.default_rng(0)
    frame = {"user": rng.integers(0, 40, 400), "item": rng.integers(0, 150, 400)}
    data = Dataset.from_frame(frame, split="held_out_users", test_fraction=0.4)
    left = sum(data.split_sizes.values()) + data.filtered.unknown + data.filtered.repeated
    assert data.filtered.unknown > 0
    assert left == 400


def test_they_are_kept_with_the_data():
    data = Dataset.from_frame(FRAME, rating="rating", min_rating=4, core=2, split=None)
    stored = arrays.to_arrays(data)
    assert arrays.from_arrays("x", stored).filtered == data.filtered
    # Data of an earlier version have none.
    del stored["filtered"]
    assert arrays.from_arrays("x", stored).filtered == Filtered()


@pytest.mark.parametrize("array", [None, np.zeros(3), np.zeros((2, 10))])
def test_other_arrays_say_nothing(array):
    assert Filtered.from_array(array) == Filtered()

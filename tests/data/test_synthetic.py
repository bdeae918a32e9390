"""The embedded data set keeps its promises: shape, tails, structure, the same rows everywhere."""

import hashlib

import numpy as np
import pytest

from hlr_jax.data import synthetic
from hlr_jax.errors import InputError


@pytest.fixture
def embedded(embedded_frame):
    return embedded_frame


def _arrays(frame):
    return frame["user"].to_numpy(), frame["item"].to_numpy()


def test_has_the_promised_size_and_tails(embedded):
    users, items = _arrays(embedded)
    activity = np.bincount(users, minlength=synthetic.DEFAULT_USERS)
    popularity = np.sort(np.bincount(items, minlength=synthetic.DEFAULT_ITEMS))[::-1]
    assert 60_000 <= embedded.height <= 100_000
    assert activity.min() >= synthetic.MIN_ACTIVITY
    assert activity.max() > 3 * np.median(activity)
    # The tenth of the items that is most popular draws more than a quarter of all plays.
    assert popularity[: popularity.size // 10].sum() > 0.25 * embedded.height
    assert popularity[-1] >= 1


def test_pairs_are_distinct_and_times_increase_within_a_user(embedded):
    users, items = _arrays(embedded)
    assert np.unique(users * synthetic.DEFAULT_ITEMS + items).size == embedded.height
    times = embedded["timestamp"].to_numpy()
    same_user = users[1:] == users[:-1]
    assert (np.diff(users) >= 0).all()
    assert (np.diff(times)[same_user] > 0).all()


def test_a_seed_fixes_every_row(embedded):
    small, again, other = (synthetic.generate(50, 200, seed) for seed in (1, 1, 2))
    assert small.equals(again)
    assert not small.equals(other)
    # The digest holds on every machine: scores quoted for the embedded data rely on it.
    digest = hashlib.sha256(embedded["item"].to_numpy().astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "edd51b68e7e89fd3"


def test_personal_scores_beat_popularity(embedded):
    users, items = _arrays(embedded)
    shape = (synthetic.DEFAULT_USERS, synthetic.DEFAULT_ITEMS)
    held = np.random.default_rng(0).random(users.size) < 0.2
    train, test = np.zeros(shape), np.zeros(shape)
    train[users[~held], items[~held]] = 1
    test[users[held], items[held]] = 1
    # EASE (Steck 2019): a linear model of the items with each other.
    inverse = np.linalg.inv(train.T @ train + 200 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    personal = _hits_at_10(train @ weights, train, test)
    popular = _hits_at_10(np.tile(train.sum(0), (shape[0], 1)), train, test)
    assert personal > 1.5 * popular


def _hits_at_10(scores, train, test):
    scores = np.where(train > 0, -np.inf, scores)
    top = np.argpartition(-scores, 10, axis=1)[:, :10]
    return np.take_along_axis(test, top, 1).sum()


def test_titles_name_every_item_once():
    titles = synthetic.titles()
    assert titles.shape == (synthetic.DEFAULT_ITEMS,)
    assert np.unique(titles).size == titles.size
    genres = {title.rsplit(" ", 1)[0] for title in titles}
    assert genres == set(synthetic.GENRES)
    assert f"{synthetic.GENRES[0]} 001" in titles


@pytest.mark.parametrize(("users", "items"), [(1, 120), (7, 121), (50, 500)])
def test_other_sizes(users, items):
    frame = synthetic.generate(users, items, seed=5)
    assert frame["user"].n_unique() == users
    assert frame["item"].max() < items
    assert synthetic.titles(items, seed=5).size == items


def test_sizes_that_cannot_be_generated():
    with pytest.raises(InputError, match="num_items=10"):
        synthetic.generate(num_items=10)
    with pytest.raises(InputError, match="num_users=0"):
        synthetic.generate(num_users=0)


def test_large_draws_distinct_skewed_pairs():
    users, items = synthetic.large(20_000, 2_000, 500, seed=3)
    assert users.dtype == items.dtype == np.int32
    assert users.size == items.size == 20_000
    assert np.unique(users.astype(np.int64) * 500 + items).size == 20_000
    assert users.max() < 2_000
    assert items.max() < 500
    counts = np.bincount(items, minlength=500)
    assert counts[:50].sum() > 2 * counts[-50:].sum()
    again = synthetic.large(20_000, 2_000, 500, seed=3)
    np.testing.assert_array_equal(again[1], items)


def test_large_bounds():
    assert synthetic.large(0, 10, 10)[0].size == 0
    with pytest.raises(InputError, match="num_rows=26"):
        synthetic.large(26, 10, 10)

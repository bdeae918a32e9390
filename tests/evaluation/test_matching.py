"""Matching probabilities, against loops."""

import numpy as np
import pytest

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation import matching as tested
from hlr_jax.evaluation.matching import interaction_tags, matching


def test_tags_of_an_interaction_are_frequent_ones_of_its_user():
    tags = np.array([[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], bool)
    # User 0 has tags 0 and 1 twice, 2 and 4 once, of which the first counts; user 2 has nothing.
    history = Interactions.from_pairs(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]), 3, 4)
    found = interaction_tags(tags, history, np.array([0, 0, 0, 1, 2]), np.array([0, 2, 3, 3, 0]))
    wanted = [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0] * 5, [0, 0, 0, 1, 0], [0] * 5]
    np.testing.assert_array_equal(found, np.array(wanted, bool))


def test_matching_by_loops(monkeypatch):
    monkeypatch.setattr(tested, "_AT_ONCE", 7)
    rng = np.random.default_rng(3)
    number = 40
    users, items = rng.integers(0, 6, number), rng.integers(0, 9, number)
    tags = rng.random((number, 4)) < 0.3
    tags[np.arange(number), rng.integers(0, 4, number)] = True
    vectors = rng.normal(size=(number, 3)) + 2
    found = matching({"relation": vectors}, tags, users, items)
    assert list(found) == ["relation", "random"]

    def cosine(i, j):
        return vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j])

    for column, error, is_apart in (
        ("probability", "error", False),
        ("apart", "apart_error", True),
    ):
        of_nearest, of_random = [], []
        for i in range(number):
            others = [
                j
                for j in range(number)
                if j != i and not (is_apart and (users[i] == users[j] or items[i] == items[j]))
            ]
            nearest = max(others, key=lambda j: cosine(i, j))
            of_nearest.append((tags[i] & tags[nearest]).any())
            of_random.append(np.mean([(tags[i] & tags[j]).any() for j in others]))
        for name, hits in (("relation", of_nearest), ("random", of_random)):
            assert getattr(found[name], column) == pytest.approx(np.mean(hits))
            off = np.array(hits) - np.mean(hits)
            wanted = np.sqrt(sum(off[users == user].sum() ** 2 for user in range(6))) / number
            assert getattr(found[name], error) == pytest.approx(wanted)


def test_without_others_there_is_no_probability():
    tags = np.ones((3, 1), bool)
    one_user = matching({"x": np.eye(3)}, tags, np.zeros(3, int), np.arange(3))
    assert one_user["x"].probability == 1
    assert np.isnan(one_user["x"].apart)
    assert np.isnan(one_user["random"].apart)

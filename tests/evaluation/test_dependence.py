"""Attention depends on groups where it does, and not where users or items explain it."""

import numpy as np
import pytest

from hlr_jax.evaluation.dependence import PERMUTATIONS, dependence, information

USERS, ITEMS, SLOTS = 30, 40, 5
SMALLEST = 1 / (1 + PERMUTATIONS)


def interactions(seed):
    """Pairs, and weights that users and items each have a part in."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((USERS, ITEMS)) < 0.5)
    of_users, of_items = rng.normal(size=(USERS, SLOTS)), rng.normal(size=(ITEMS, SLOTS))
    logits = of_users[users] + of_items[items] + 0.3 * rng.normal(size=(len(users), SLOTS))
    return rng, users, items, logits


def softmax(logits):
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def one_hot(groups, count):
    return np.eye(count)[groups]


def test_information_by_its_definition():
    joint = np.random.default_rng(0).random((4, 6))
    p = joint / joint.sum()
    wanted = sum(
        p[g, s] * np.log2(p[g, s] / (p[g].sum() * p[:, s].sum()))
        for g in range(4)
        for s in range(6)
    )
    assert information(joint) == pytest.approx(wanted, rel=1e-12)
    assert information(np.outer([1.0, 2.0], [3.0, 4.0, 0.0])) == pytest.approx(0, abs=1e-15)
    # Four groups that each have a slot of their own: two bits.
    assert information(3 * np.eye(4)) == pytest.approx(2)


@pytest.mark.parametrize(("level", "among"), [("item", "items"), ("user", "users")])
def test_groups_of_items_or_users(level, among):
    rng, users, items, logits = interactions(3)
    ids, count = (items, ITEMS) if level == "item" else (users, USERS)
    groups = rng.integers(0, 3, count)
    found = dependence(softmax(logits), one_hot(groups, 3)[ids], users, items)
    # By interaction it would seem to depend: whoever is alike stays together.
    assert found.among == among
    assert found.p > 0.05
    assert found.tested == pytest.approx(found.permuted, rel=1)
    naive = [
        information(one_hot(rng.permutation(groups[ids]), 3).T @ softmax(logits)) for _ in range(99)
    ]
    assert found.bits > max(naive)
    logits[np.arange(len(logits)), groups[ids]] += 1.5
    found = dependence(softmax(logits), one_hot(groups, 3)[ids], users, items)
    assert found.p == SMALLEST
    assert found.tested > 2 * found.permuted


@pytest.mark.parametrize("among", ["items", "users"])
def test_taste_is_no_attention_to_genres(among):
    """Users attend each in their own way, and have items of few genres; and the other way round."""
    rng = np.random.default_rng(5)
    genres = rng.integers(0, 3, ITEMS)
    taste = np.exp(2 * rng.normal(size=(USERS, 3)))[:, genres]
    users, items = np.nonzero(rng.random((USERS, ITEMS)) < 0.4 * taste / taste.mean())
    logits = rng.normal(size=(USERS, SLOTS))[users] + 0.3 * rng.normal(size=(len(users), SLOTS))
    sides = (users, items) if among == "items" else (items, users)
    found = dependence(softmax(logits), one_hot(genres, 3)[items], *sides)
    assert found.among == among
    assert found.p > 0.05
    assert found.bits > 5 * found.tested
    logits[np.arange(len(logits)), genres[items]] += 0.5
    found = dependence(softmax(logits), one_hot(genres, 3)[items], *sides)
    assert found.p == SMALLEST


def test_groups_that_users_and_items_explain_together():
    """As ratings, of which generous users give high ones, and good items get them."""
    rng, users, items, logits = interactions(2)
    of_users, of_items = rng.uniform(0, 0.5, USERS), rng.uniform(0, 0.5, ITEMS)
    chance = of_users[users] + of_items[items]
    weights = softmax(logits)
    weights = 0.5 * weights + 0.5 * np.stack([chance, 1 - chance, *np.zeros((3, len(users)))], 1)
    groups = (rng.random(len(users)) < chance).astype(int)
    found = dependence(weights, one_hot(groups, 2), users, items)
    assert found.among == "items of users"
    assert found.p > 0.05
    assert found.bits > 5 * found.tested
    weights[:, 0] += 0.1 * groups
    weights /= weights.sum(axis=1, keepdims=True)
    found = dependence(weights, one_hot(groups, 2), users, items)
    assert found.p == SMALLEST
    assert found.bits > found.tested > 2 * found.permuted


def test_the_test_keeps_its_level():
    """Of groups that mean nothing about a twentieth is below .05."""
    p = []
    for seed in range(20):
        rng, users, items, logits = interactions(10 + seed)
        groups = one_hot(rng.integers(0, 2, len(users)), 2)
        p.append(dependence(softmax(logits), groups, users, items, seed).p)
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert 0.3 < np.mean(p) < 0.9

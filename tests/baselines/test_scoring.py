"""Lists and metrics of baselines."""

import dataclasses

import numpy as np
import pytest
from baseline_cases import ITEMS, SMALL, USERS, all_scores, dense

from hlr_jax import baselines
from hlr_jax.baselines import MostPopular, ease, scoring
from hlr_jax.config import EvaluationConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError


def test_most_popular_by_hand():
    # Items 0..4 have 1, 3, 2, 3, 0 interactions.
    pairs = [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    train = Interactions.from_pairs(*np.array(pairs).T, 4, 5)
    scorer = MostPopular().fit(train)
    top = baselines.top_k(scorer, np.array([3, 0, 2]), 4, train)
    assert top.tolist() == [[1, 3, 2, 0], [2, 0, 4, -1], [4, -1, -1, -1]]
    assert baselines.top_k(scorer, np.array([3]), 7, train).tolist() == [[1, 3, 2, 0, 4, -1, -1]]


@pytest.mark.parametrize("name", SMALL)
def test_lists_are_the_best_unknown_items(name, dataset, monkeypatch):
    known = dataset.train.union(dataset.valid)
    scorer = SMALL[name].fit(dataset.train)
    scores = np.asarray(all_scores(scorer, known), np.float32)
    users = np.random.default_rng(4).permutation(USERS)
    top = baselines.top_k(scorer, users, ITEMS, known)
    for row, user in zip(top, users.tolist(), strict=True):
        unknown = [item for item in range(ITEMS) if item not in known.of(user)]
        expected = sorted(unknown, key=lambda item, user=user: (-scores[user, item], item))
        assert row.tolist() == expected + [-1] * (ITEMS - len(expected))
    # The same in parts of few users.
    monkeypatch.setattr(scoring, "_ENTRIES_AT_ONCE", 4 * ITEMS)
    np.testing.assert_array_equal(baselines.top_k(scorer, users, ITEMS, known), top)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_exclude_what_is_known_before_the_split(split, dataset):
    train, valid = dense(dataset.train), dense(dataset.valid)
    known = train if split == "valid" else train + valid
    relevant = dense(getattr(dataset, split))
    weights = ease.ease_weights(dataset.train, 3.0)
    recalls = []
    for user in range(USERS):
        if relevant[user].any():
            scores = np.where(known[user] > 0, -np.inf, known[user] @ weights)
            recalls.append(relevant[user, np.argsort(-scores)[:3]].sum() / relevant[user].sum())
    evaluation = EvaluationConfig(cutoffs=(3,), bootstrap=0)
    found = baselines.evaluate(SMALL["ease"].fit(dataset.train), dataset, evaluation, split)
    fitted = baselines.BaselineRecommender.fit(SMALL["ease"], dataset)
    assert fitted.evaluate(split, evaluation) == found
    assert found["users"] == len(recalls)
    assert found["recall@3"] == pytest.approx(np.mean(recalls))
    assert found["protocol"] == "full"


def held_out(dataset: Dataset) -> Dataset:
    """The same, with users 0 to 9 held out: nothing of them is trained on."""
    out = np.arange(USERS) < 10
    return dataclasses.replace(
        dataset,
        train=dataset.train.of_users(~out),
        given=dataset.train.of_users(out),
        valid=dataset.valid.of_users(np.arange(USERS) < 5),
        test=dataset.test.of_users(out & (np.arange(USERS) >= 5)),
    )


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_users_are_ranked_by_what_is_given(split, dataset):
    dataset = held_out(dataset)
    given, relevant = dense(dataset.given), dense(getattr(dataset, split))
    weights = ease.ease_weights(dataset.train, 3.0)
    recalls = []
    for user in range(10):
        if relevant[user].any():
            scores = np.where(given[user] > 0, -np.inf, given[user] @ weights)
            hits = relevant[user, np.argsort(-scores)[:3]].sum()
            recalls.append(hits / min(3, relevant[user].sum()))
    evaluation = EvaluationConfig(cutoffs=(3,), bootstrap=0)
    found = baselines.evaluate(SMALL["ease"].fit(dataset.train), dataset, evaluation, split)
    assert found["users"] == len(recalls) > 1
    assert found["recall_capped@3"] == pytest.approx(np.mean(recalls))


def test_untrained_users_are_folded_into_ials(dataset):
    dataset = held_out(dataset)
    method = SMALL["ials"]
    scorer = method.fit(dataset.train, seed=5)
    found = all_scores(scorer, dataset.known("test"))
    given, items = dense(dataset.known("test")), scorer.item.astype(np.float64)
    for user in range(USERS):
        vector = scorer.user[user].astype(np.float64)
        if not dataset.train.counts[user]:

            def slope(vector, wanted=given[user]):
                """Half of the gradient of what ALS minimises."""
                total = method.regularization * vector
                for item in range(ITEMS):
                    weight = method.alpha if wanted[item] else 1.0
                    total = total + weight * (items[item] @ vector - wanted[item]) * items[item]
                return total

            # The slope is linear: its zero is one Newton step from anywhere.
            matrix = np.stack([slope(axis) - slope(np.zeros(4)) for axis in np.eye(4)], 1)
            vector = -np.linalg.solve(matrix, slope(np.zeros(4)))
            np.testing.assert_allclose(slope(vector), 0, atol=1e-12)
        np.testing.assert_allclose(found[user], items @ vector, rtol=1e-4, atol=1e-6)
    assert np.abs(found[:5]).max() > 0.05


def test_a_method_without_vectors_of_held_out_users_is_refused(dataset):
    out = held_out(dataset)
    for tuning in (baselines.Tuning(), baselines.Tuning(fixed={"factors": 3})):
        with pytest.raises(InputError) as caught:
            baselines.tune(baselines.BPR, out, tuning)
        assert str(caught.value) == (
            "BPR has no vectors of the users that data set made holds out; use most_popular, "
            "ease, ials, item_knn, slim, rp3beta, ials_scaled"
        )


def test_given_negatives_by_hand():
    """Users 0 and 1 have a test item and negatives, user 2 an unknown negative."""
    train = Interactions.from_pairs(np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1]), 3, 6)
    test = Interactions.from_pairs(np.array([0, 1, 2]), np.array([3, 1, 4]), 3, 6)
    empty = Interactions.from_pairs(np.array([], int), np.array([], int), 3, 6)
    negatives = np.array([[4, 5], [0, 1], [-1, 3]], np.int32)
    dataset = Dataset("made", train, empty, test, np.arange(3), np.arange(6), None, negatives)
    evaluation = EvaluationConfig(cutoffs=(1, 2), bootstrap=0, protocol="sampled")
    found = baselines.evaluate(MostPopular().fit(train), dataset, evaluation)
    # User 0: item 3 ties with 4 and 5, so it is third. User 1: item 1 is less popular than
    # item 0, and is listed among its own negatives, which does not count: second.
    assert found["users"] == 2
    assert (found["hit_rate@1"], found["hit_rate@2"]) == (0.0, 0.5)
    assert found["ndcg@2"] == pytest.approx(0.5 / np.log2(3))
    with pytest.raises(InputError, match="no user has an item in the valid split"):
        baselines.evaluate(MostPopular().fit(train), dataset, evaluation, "valid")


def test_what_cannot_be_evaluated_is_refused(dataset):
    scorer = MostPopular().fit(dataset.train)
    sampled = EvaluationConfig(cutoffs=(3,), protocol="sampled")
    with pytest.raises(InputError, match="made gives no negatives"):
        baselines.evaluate(scorer, dataset, sampled)
    with pytest.raises(InputError, match="use full for valid"):
        baselines.evaluate(scorer, dataset, sampled, "valid")
    with pytest.raises(InputError, match="a cutoff of 15"):
        baselines.evaluate(scorer, dataset, EvaluationConfig(cutoffs=(15,)))

"""Baselines against loops written from their definitions, and against their libraries."""

import dataclasses
import os
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from baseline_cases import ITEMS, SMALL, USERS, all_scores, dense, random_interactions

from hlr_jax import baselines
from hlr_jax.baselines import (
    BPR,
    IALS,
    Ease,
    ItemKNN,
    RP3Beta,
    ScaledIALS,
    Slim,
    ease,
    scoring,
)
from hlr_jax.baselines.fitted import FoldedInFactors, ItemWeights
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError


def test_every_method_is_tested_here_and_every_field_can_be_tuned():
    assert list(SMALL) == list(baselines.METHODS)
    for name, method in SMALL.items():
        assert type(method) is baselines.METHODS[name]
        assert list(method.space) == [field.name for field in dataclasses.fields(method)]


def test_ease_is_the_best_regression_of_items_on_other_items(dataset):
    strength = 3.0
    weights = ease.ease_weights(dataset.train, strength)
    matrix = dense(dataset.train)
    for j in range(ITEMS):
        # Column j by itself: the normal equations of all items but j.
        others = [i for i in range(ITEMS) if i != j]
        left = matrix[:, others].T @ matrix[:, others] + strength * np.eye(ITEMS - 1)
        best = np.linalg.solve(left, matrix[:, others].T @ matrix[:, j])
        np.testing.assert_allclose(weights[others, j], best, rtol=1e-9, atol=1e-12)
        assert weights[j, j] == 0

    def objective(candidate: np.ndarray) -> float:
        return ((matrix - matrix @ candidate) ** 2).sum() + strength * (candidate**2).sum()

    random = np.random.default_rng(3)
    for _ in range(20):
        other = weights + 1e-3 * random.normal(size=weights.shape)
        np.fill_diagonal(other, 0)
        assert objective(other) > objective(weights)


def test_ease_scores_are_sums_over_the_history(dataset):
    history = dataset.train.union(dataset.valid)
    weights = ease.ease_weights(dataset.train, 3.0)
    found = all_scores(SMALL["ease"].fit(dataset.train), history)
    for user in range(USERS):
        expected = np.zeros(ITEMS)
        for item in history.of(user):
            expected += weights[item]
        np.testing.assert_allclose(found[user], expected, rtol=1e-5, atol=1e-6)


def test_cosine_neighbours_by_loops():
    neighbours = 5
    train = random_interactions(17, 0.3)
    matrix, history = dense(train), train.union(random_interactions(1, 0.1))
    similar = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        for j in range(ITEMS):
            norms = np.sqrt((matrix[:, i] ** 2).sum() * (matrix[:, j] ** 2).sum())
            similar[i, j] = matrix[:, i] @ matrix[:, j] / norms if norms else 0.0
    expected = np.zeros((USERS, ITEMS))
    for i in range(ITEMS):
        ranked = np.sort(similar[i])[::-1]
        # Of ties the library may keep any; this seed has none at the end of a list.
        assert ranked[neighbours - 1] > ranked[neighbours] + 1e-9 or ranked[neighbours] == 0
        for j in np.argsort(-similar[i], kind="stable")[:neighbours]:
            for user in range(USERS):
                expected[user, j] += similar[i, j] * (i in history.of(user))
    found = all_scores(ItemKNN("cosine", neighbours).fit(train), history)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weighting", ["tfidf", "bm25"])
def test_weighted_neighbours_score_as_the_library_does(weighting, dataset):
    from implicit import nearest_neighbours
    from implicit.utils import ParameterWarning

    kind = {"tfidf": "TFIDFRecommender", "bm25": "BM25Recommender"}[weighting]
    theirs = getattr(nearest_neighbours, kind)(K=6)
    with pytest.warns(ParameterWarning):
        theirs.fit(scoring.as_matrix(dataset.train), show_progress=False)
    history = scoring.as_matrix(dataset.train.union(dataset.valid))
    found = ItemKNN(weighting, 6).fit(dataset.train)(np.arange(USERS), history)
    for user in range(USERS):
        items, scores = theirs.recommend(
            user, history[user], N=ITEMS, filter_already_liked_items=False
        )
        expected = np.zeros(ITEMS)
        expected[items] = scores
        np.testing.assert_allclose(found[user], expected, rtol=1e-6)


def test_ials_solves_for_its_items_and_scores_by_products(dataset):
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares

    method = IALS(factors=4, regularization=0.5, alpha=3.0, iterations=40)
    with threadpoolctl.threadpool_limits(1, "blas"):
        theirs = AlternatingLeastSquares(**dataclasses.asdict(method), random_state=5)
        theirs.fit(scoring.as_matrix(dataset.train), show_progress=False)
    scores = all_scores(method.fit(dataset.train, seed=5), dataset.train)
    expected = theirs.user_factors.astype(np.float64) @ theirs.item_factors.T
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)

    # Converged, each item is the weighted ridge regression of the docstring.
    matrix, users = dense(dataset.train), theirs.user_factors.astype(np.float64)
    for item in range(ITEMS):
        weights = 1 + (method.alpha - 1) * matrix[:, item]
        left = (users * weights[:, None]).T @ users + method.regularization * np.eye(4)
        best = np.linalg.solve(left, users.T @ (weights * matrix[:, item]))
        np.testing.assert_allclose(theirs.item_factors[item], best, rtol=0, atol=1e-3)


def test_scaled_ials_meets_the_equations_of_its_objective(dataset, monkeypatch):
    monkeypatch.setattr(ScaledIALS, "ITERATIONS", 300)
    strength, unobserved, factors = 0.03, 0.3, 3
    matrix = dense(dataset.train)
    fitted = ScaledIALS(factors, strength, unobserved).fit(dataset.train, seed=5)
    assert isinstance(fitted, FoldedInFactors)
    users, items = fitted.user.astype(np.float64), fitted.item.astype(np.float64)
    assert np.abs(users).max() > 0.1
    np.testing.assert_allclose(
        all_scores(fitted, dataset.train), users @ items.T, rtol=1e-5, atol=1e-6
    )

    for mine, other, data in ((users, items, matrix), (items, users, matrix.T)):
        for row, vector in enumerate(mine):
            gradient = strength * (unobserved * len(other) + data[row].sum()) * vector
            for column, target in enumerate(other):
                product = vector @ target
                gradient = gradient + unobserved * product * target
                if data[row, column]:
                    gradient = gradient - (1 - product) * target
            np.testing.assert_allclose(gradient, 0, atol=1e-3)

    # A user that is not trained, with the same items, is given the same vector.
    untrained = dataclasses.replace(fitted, is_trained=np.zeros(USERS, bool))
    np.testing.assert_allclose(
        all_scores(untrained, dataset.train), all_scores(fitted, dataset.train), atol=1e-3
    )


def test_slim_meets_the_conditions_of_its_minimum(dataset):
    l2, l1 = 3.0, 0.3
    fitted = Slim(l2, l1).fit(dataset.train)
    assert isinstance(fitted, ItemWeights)
    weights = fitted.weights.toarray().astype(np.float64)
    matrix = dense(dataset.train)
    assert (weights >= 0).all()
    assert 0 < np.count_nonzero(weights) < ITEMS * (ITEMS - 1)
    for j in range(ITEMS):
        assert weights[j, j] == 0
        rest = matrix[:, j] - matrix @ weights[:, j]
        for i in set(range(ITEMS)) - {j}:
            # The derivative of the objective: 0 inside, and not below 0 at the bound.
            slope = -matrix[:, i] @ rest + l2 * weights[i, j] + l1
            if weights[i, j] > 0:
                assert abs(slope) < 5e-3
            else:
                assert slope > -5e-3


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_rp3beta_by_loops(beta):
    neighbours, train = 4, random_interactions(1, 0.3)
    matrix, history = dense(train), train.union(random_interactions(2, 0.1))
    weights = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        for j in range(ITEMS):
            for user in range(USERS):
                if matrix[user, i] and matrix[user, j]:
                    from_i, from_user = 1 / matrix[:, i].sum(), 1 / matrix[user].sum()
                    weights[i, j] += from_i * from_user / matrix[:, j].sum() ** beta
    expected = np.zeros((USERS, ITEMS))
    for j in range(ITEMS):
        ranked = np.sort(weights[:, j])[::-1]
        # Of ties the library may keep any; this seed has none at the end of a list.
        assert ranked[neighbours - 1] > ranked[neighbours] + 1e-9 or ranked[neighbours] == 0
        for i in np.argsort(-weights[:, j])[:neighbours]:
            for user in range(USERS):
                expected[user, j] += weights[i, j] * (i in history.of(user))
    found = all_scores(RP3Beta(beta, neighbours).fit(train), history)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_bpr_learns_to_rank_what_users_have_first(dataset):
    scores = all_scores(BPR(8, 0.1, 0.001, 200).fit(dataset.train), dataset.train)
    matrix = dense(dataset.train)
    right = [
        scores[user, i] > scores[user, j]
        for user in range(USERS)
        for i in range(ITEMS)
        for j in range(ITEMS)
        if matrix[user, i] > matrix[user, j]
    ]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_scores(name, dataset):
    one, same, other = (
        np.asarray(all_scores(SMALL[name].fit(dataset.train, seed), dataset.train))
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(one, same)
    assert (name in ("ials", "bpr", "ials_scaled")) == (not np.array_equal(one, other))


@pytest.mark.parametrize("name", SMALL)
def test_read_only_interactions_are_enough(name, dataset):
    """As prepared data are, which are mapped into memory."""
    offsets, items = dataset.train.offsets.copy(), dataset.train.items.copy()
    offsets.flags.writeable = items.flags.writeable = False
    fitted = SMALL[name].fit(Interactions(offsets, items, ITEMS))
    np.testing.assert_array_equal(
        all_scores(fitted, dataset.train),
        all_scores(SMALL[name].fit(dataset.train), dataset.train),
    )


def test_fitting_leaves_threads_and_warnings_alone(dataset):
    import threadpoolctl

    def threads():
        return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

    before = threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for method in SMALL.values():
            method.fit(dataset.train)
    assert not caught
    assert before.items() <= threads().items()  # a package may bring a library of its own


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_implicit_says_when_it_diverged(dataset):
    with pytest.raises(DivergedError, match="implicit: "):
        BPR(4, 1e30, 1e30, 20).fit(dataset.train)


def test_ease_holds_one_matrix_in_double_precision():
    # NumPy's arrays are traced; those that LAPACK's wrappers would make are among them.
    items = 400
    chosen = np.random.default_rng(4).random((900, items)) < 0.002
    train = Interactions.from_pairs(*np.nonzero(chosen), *chosen.shape)
    tracemalloc.start()
    ease.ease_weights(train, 3.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The sparse Gram matrix comes on top.
    assert peak < 2 * 8 * items**2


def test_ease_says_when_its_matrix_is_singular():
    same = Interactions.from_pairs(np.zeros(2, int), np.arange(2), 1, 2)
    with pytest.raises(DivergedError, match=r"EASE: .* is singular"):
        ease.ease_weights(same, 1e-30)


def test_ease_refuses_catalogues_beyond_memory(dataset, monkeypatch):
    needed = (8 + 4) * ITEMS**2
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed - 1}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(InputError, match="a matrix of 14 x 14 items") as caught:
        Ease().fit(dataset.train)
    assert "\n" not in str(caught.value)
    sizes["SC_PHYS_PAGES"] = needed
    Ease().fit(dataset.train)


def test_irspack_says_when_it_diverged(dataset):
    with pytest.raises(DivergedError, match="irspack: "):
        ScaledIALS(factors=4, regularization=1e38, unobserved_weight=1e38).fit(dataset.train)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("implicit.recommender_base", ["ials", "bpr", "item_knn"]),
        ("irspack", ["slim", "rp3beta", "ials_scaled"]),
    ],
)
def test_a_missing_library_is_reported(module, names, dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for name in names:
        with pytest.raises(InputError, match=r"pip install 'hlr_jax\[baselines\]'") as caught:
            SMALL[name].fit(dataset.train)
        assert module.partition(".")[0] in str(caught.value)

"""Baselines against loops written from their definitions, and against their libraries."""

import dataclasses
import json
import os
import sys
import warnings

import numpy as np
import pytest

from hlr_jax import baselines
from hlr_jax.baselines import BPR, IALS, Ease, ItemKNN, MostPopular, methods, scoring
from hlr_jax.config import Config, DataConfig, EvaluationConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.tuning.search_space import Choice, Range

USERS, ITEMS = 30, 14
SMALL = {
    "most_popular": MostPopular(),
    "ease": Ease(regularization=3.0),
    "ials": IALS(factors=4, regularization=0.5, alpha=3.0, iterations=5),
    "bpr": BPR(factors=4, learning_rate=0.05, iterations=10),
    "item_knn": ItemKNN(weighting="cosine", neighbours=5),
}


def random_interactions(seed: int, share: float) -> Interactions:
    """Random pairs; the last user and the last item have none."""
    chosen = np.random.default_rng(seed).random((USERS, ITEMS)) < share
    chosen[-1] = chosen[:, -1] = False
    return Interactions.from_pairs(*np.nonzero(chosen), USERS, ITEMS)


def dense(interactions: Interactions) -> np.ndarray:
    matrix = np.zeros((interactions.num_users, interactions.num_items))
    for user in range(interactions.num_users):
        for item in interactions.of(user):
            matrix[user, item] = 1.0
    return matrix


def without(interactions: Interactions, other: Interactions) -> Interactions:
    pairs = np.nonzero((dense(interactions) > 0) & (dense(other) == 0))
    return Interactions.from_pairs(*pairs, USERS, ITEMS)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    train = random_interactions(0, 0.3)
    valid = without(random_interactions(1, 0.1), train)
    test = without(random_interactions(2, 0.2), train.union(valid))
    return Dataset("made", train, valid, test, np.arange(USERS), np.arange(ITEMS))


def all_scores(scorer: baselines.Scorer, history: Interactions) -> np.ndarray:
    return scorer(np.arange(history.num_users), scoring.as_matrix(history))


def test_every_method_is_tested_here_and_every_field_can_be_tuned():
    assert list(SMALL) == list(baselines.METHODS)
    for name, method in SMALL.items():
        assert type(method) is baselines.METHODS[name]
        assert list(method.space) == [field.name for field in dataclasses.fields(method)]


# --- what they compute ---------------------------------------------------------------------------


def test_ease_is_the_best_regression_of_items_on_other_items(dataset):
    strength = 3.0
    weights = methods.ease_weights(dataset.train, strength)
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
    weights = methods.ease_weights(dataset.train, 3.0)
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

    # Converged, each item is the weighted ridge regression that the docstring tells.
    matrix, users = dense(dataset.train), theirs.user_factors.astype(np.float64)
    for item in range(ITEMS):
        weights = 1 + (method.alpha - 1) * matrix[:, item]
        left = (users * weights[:, None]).T @ users + method.regularization * np.eye(4)
        best = np.linalg.solve(left, users.T @ (weights * matrix[:, item]))
        np.testing.assert_allclose(theirs.item_factors[item], best, rtol=0, atol=1e-3)


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


def test_most_popular_by_hand():
    # Items 0..4 have 1, 3, 2, 3, 0 interactions.
    pairs = [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    train = Interactions.from_pairs(*np.array(pairs).T, 4, 5)
    scorer = MostPopular().fit(train)
    top = baselines.top_k(scorer, np.array([3, 0, 2]), 4, train)
    assert top.tolist() == [[1, 3, 2, 0], [2, 0, 4, -1], [4, -1, -1, -1]]
    assert baselines.top_k(scorer, np.array([3]), 7, train).tolist() == [[1, 3, 2, 0, 4, -1, -1]]


# --- what all of them do -------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_scores(name, dataset):
    one, same, other = (
        np.asarray(all_scores(SMALL[name].fit(dataset.train, seed), dataset.train))
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(one, same)
    assert (name in ("ials", "bpr")) == (not np.array_equal(one, other))


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

    before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for method in SMALL.values():
            method.fit(dataset.train)
    assert not caught
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == before


# --- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["valid", "test"])
def test_measures_know_what_is_known_before_the_split(split, dataset):
    train, valid = dense(dataset.train), dense(dataset.valid)
    known = train if split == "valid" else train + valid
    relevant = dense(getattr(dataset, split))
    weights = methods.ease_weights(dataset.train, 3.0)
    recalls = []
    for user in range(USERS):
        if relevant[user].any():
            scores = np.where(known[user] > 0, -np.inf, known[user] @ weights)
            recalls.append(relevant[user, np.argsort(-scores)[:3]].sum() / relevant[user].sum())
    evaluation = EvaluationConfig(cutoffs=(3,), bootstrap=0)
    found = baselines.evaluate(SMALL["ease"].fit(dataset.train), dataset, evaluation, split)
    assert found["users"] == len(recalls)
    assert found["recall@3"] == pytest.approx(np.mean(recalls))
    assert found["protocol"] == "full"


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


def test_what_cannot_be_measured_is_refused(dataset):
    scorer = MostPopular().fit(dataset.train)
    sampled = EvaluationConfig(cutoffs=(3,), protocol="sampled")
    with pytest.raises(InputError, match="made gives no negatives"):
        baselines.evaluate(scorer, dataset, sampled)
    with pytest.raises(InputError, match="use full for valid"):
        baselines.evaluate(scorer, dataset, sampled, "valid")
    with pytest.raises(InputError, match="a cutoff of 15"):
        baselines.evaluate(scorer, dataset, EvaluationConfig(cutoffs=(15,)))


# --- tuning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ease", "ials", "bpr", "item_knn"])
def test_tuning_takes_the_best_trial_on_validation(name, dataset):
    method = baselines.METHODS[name]
    best, tried = baselines.tune(method, dataset, 4, "recall@3", seed=1)
    assert len(tried) == 4
    evaluation = EvaluationConfig(cutoffs=(3,), bootstrap=0)
    for trial in tried:
        for hyperparameter, value in trial["hyperparameters"].items():
            where = method.space[hyperparameter]
            if isinstance(where, Choice):
                assert value in where.values
            else:
                assert where.low <= value <= where.high
        scorer = method(**trial["hyperparameters"]).fit(dataset.train, 1)
        found = baselines.evaluate(scorer, dataset, evaluation, "valid")["recall@3"]
        assert trial["recall@3"] == pytest.approx(found)
    values = [trial["recall@3"] for trial in tried]
    assert dataclasses.asdict(best) == tried[int(np.argmax(values))]["hyperparameters"]
    again, _ = baselines.tune(method, dataset, 4, "recall@3", seed=1)
    assert again == best


def test_trials_that_diverge_are_passed_over(dataset, monkeypatch):
    fit = Ease.fit

    def fit_or_diverge(self, train, seed=0):
        if self.regularization > 100:
            raise DivergedError("not finite")
        return fit(self, train, seed)

    monkeypatch.setattr(Ease, "fit", fit_or_diverge)
    best, tried = baselines.tune(Ease, dataset, 8, "recall@3")
    values = [trial["recall@3"] for trial in tried]
    assert None in values
    assert best.regularization <= 100
    monkeypatch.setattr(Ease, "space", {"regularization": Range(200.0, 300.0)})
    with pytest.raises(DivergedError, match="none of 2 trials"):
        baselines.tune(Ease, dataset, 2, "recall@3")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_implicit_says_when_it_diverged(dataset):
    with pytest.raises(DivergedError, match="implicit: "):
        BPR(4, 1e30, 1e30, 20).fit(dataset.train)


def test_what_cannot_be_tuned_is_refused(dataset):
    empty = Interactions.from_pairs(np.array([], int), np.array([], int), USERS, ITEMS)
    with pytest.raises(InputError, match="no validation split to tune on"):
        baselines.tune(Ease, dataclasses.replace(dataset, valid=empty), 2, "ndcg@3")
    with pytest.raises(InputError, match="--select='best'"):
        baselines.tune(Ease, dataset, 2, "best")
    with pytest.raises(InputError, match="--select=ndcg@100: a cutoff of 100"):
        baselines.tune(Ease, dataset, 2, "ndcg@100")
    assert baselines.tune(MostPopular, dataset, 2) == (MostPopular(), [])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HLR_JAX_DATA", str(tmp_path / "data"))


@pytest.mark.usefixtures("own_cache")
def test_a_run_writes_what_it_did(tmp_path):
    config = Config(
        data=DataConfig(name="embedded"), evaluation=EvaluationConfig(cutoffs=(5,), bootstrap=0)
    )
    folder = tmp_path / "runs" / "ease"
    results = baselines.tune_and_evaluate(
        "ease", config, folder, trials=3, select="ndcg@10", show_progress=False
    )
    assert json.loads((folder / "results.json").read_text()) == results
    best = max(results["trials"], key=lambda trial: trial["ndcg@10"])
    assert results["hyperparameters"] == best["hyperparameters"]
    fixed = baselines.tune_and_evaluate(
        "ease", config, folder, fixed=best["hyperparameters"], show_progress=False
    )
    assert fixed["trials"] == []
    assert fixed["test"] == results["test"]
    refit = baselines.tune_and_evaluate(
        "ease", config, folder, fixed=best["hyperparameters"], refit=True, show_progress=False
    )
    assert refit["valid"] == fixed["valid"]
    assert refit["test"] != fixed["test"]


@pytest.mark.usefixtures("own_cache")
def test_workdirs_of_something_else_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name, fault in (("file", "is a file"), ("run", "holds the training run of a model")):
        with pytest.raises(InputError, match=fault):
            baselines.tune_and_evaluate("most_popular", Config(), tmp_path / name)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings", "fault"),
    [
        ("ease", ["lambda=3"], "--set=lambda=3: ease has regularization"),
        ("ease", ["regularization=much"], "--set=regularization=much: expected float"),
        ("ials", ["factors=1.5"], "--set=factors=1.5: expected int"),
        ("ials", ["factors"], "--set=factors: expected int"),
        ("most_popular", ["k=1"], "most_popular has no hyperparameters"),
    ],
)
def test_settings_that_do_not_exist_are_refused(method, settings, fault):
    with pytest.raises(InputError) as caught:
        methods.parse(method, settings)
    assert fault in str(caught.value)


def test_settings_are_read_by_type():
    found = methods.parse("ials", ["factors=32", "alpha=2"])
    assert found == {"factors": 32, "alpha": 2.0}
    assert [type(value) for value in found.values()] == [int, float]
    assert methods.parse("item_knn", ["weighting=tfidf"]) == {"weighting": "tfidf"}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_hyperparameters_out_of_range_are_refused(value):
    with pytest.raises(InputError, match="use a number above 0"):
        Ease(regularization=value)
    with pytest.raises(InputError, match="weighting='jaccard': use one of cosine, tfidf, bm25"):
        ItemKNN(weighting="jaccard")


def test_ease_refuses_catalogues_beyond_memory(dataset, monkeypatch):
    needed = 3 * 8 * ITEMS**2
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed - 1}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(InputError, match="a matrix of 14 x 14 items") as caught:
        Ease().fit(dataset.train)
    assert "\n" not in str(caught.value)
    sizes["SC_PHYS_PAGES"] = needed
    Ease().fit(dataset.train)


@pytest.mark.parametrize("name", ["ials", "bpr", "item_knn"])
def test_a_missing_library_is_told(name, dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.recommender_base", None)
    with pytest.raises(InputError, match=r"pip install 'hlr_jax\[baselines\]'"):
        SMALL[name].fit(dataset.train)


def test_a_missing_optuna_is_told(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'hlr_jax\[sweep\]'"):
        baselines.tune(Ease, dataset, 2, "ndcg@3")

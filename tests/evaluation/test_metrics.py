"""Metrics against trec_eval, against naive loops, and against examples worked by hand."""

import math
import statistics

import hypothesis.strategies as st
import jaxtyping
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics


def interactions(items_of: list[list[int]], num_items: int) -> Interactions:
    users = [user for user, items in enumerate(items_of) for _ in items]
    items = [item for items in items_of for item in items]
    return Interactions.from_pairs(
        np.array(users, int), np.array(items, int), len(items_of), num_items
    )


def as_top(lists: list[list[int]], width: int) -> np.ndarray:
    """`[U, width]` with -1 after the end of a list."""
    top = np.full((len(lists), width), -1, np.int32)
    for row, items in enumerate(lists):
        top[row, : len(items)] = items
    return top


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int, int]:
    """(lists, relevant items of every user, num_items, width of the lists)."""
    num_items = draw(st.integers(1, 12))
    width = draw(st.integers(1, 14))
    items = st.lists(st.integers(0, num_items - 1), unique=True)
    lists = draw(st.lists(items.map(lambda x: x[:width]), min_size=1, max_size=6))
    relevant = [draw(items) for _ in lists]
    relevant[0] = relevant[0] or [0]
    return lists, relevant, num_items, width


def naive(name: str, items: list[int], relevant: set[int], k: int) -> float:
    """One user's metric, straight from its definition."""
    ranks = [r for r, item in enumerate(items[:k], 1) if item in relevant]

    def dcg(at: list[int]) -> float:
        return sum(1 / math.log2(r + 1) for r in at)

    def ideal(n: int) -> list[int]:
        return list(range(1, n + 1))

    precisions = sum(sum(s <= r for s in ranks) / r for r in ranks)
    match name:
        case "recall":
            return len(ranks) / len(relevant)
        case "recall_capped":
            return len(ranks) / min(k, len(relevant))
        case "precision":
            return len(ranks) / k
        case "hit_rate":
            return float(bool(ranks))
        case "mrr":
            return 1 / ranks[0] if ranks else 0.0
        case "ndcg":
            return dcg(ranks) / dcg(ideal(min(k, len(relevant))))
        case "map":
            return precisions / min(k, len(relevant))
        case "ndcg_local":
            return dcg(ranks) / dcg(ideal(len(ranks))) if ranks else math.nan
        case "mrr_all_hits":
            return sum(1 / r for r in ranks)
        case "map_list_length":
            return precisions / k
    raise AssertionError(f"no oracle for {name}")


@given(problems())
def test_hits_are_the_relevant_items(problem: tuple) -> None:
    lists, relevant, num_items, width = problem
    top = as_top(lists, width)
    found = metrics.hits(top, np.arange(len(lists)), interactions(relevant, num_items))
    expected = [[item in relevant[u] for item in row] for u, row in enumerate(top.tolist())]
    np.testing.assert_array_equal(found, expected)


def test_hits_in_slices_and_in_any_order_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    relevant = Interactions.from_pairs(
        random.integers(0, 50, 400), random.integers(0, 30, 400), 50, 30
    )
    top = np.stack([random.permutation(30)[:7] for _ in range(20)]).astype(np.int32)
    users = random.permutation(50)[:20]
    whole = metrics.hits(top, users, relevant)
    monkeypatch.setattr(metrics.lists, "_ENTRIES_AT_ONCE", 15)
    np.testing.assert_array_equal(metrics.hits(top, users, relevant), whole)
    expected = [np.isin(row, relevant.of(int(u))) for row, u in zip(top, users, strict=True)]
    np.testing.assert_array_equal(whole, expected)


def test_hits_without_any_relevant_item() -> None:
    found = metrics.hits(as_top([[0, 1]], 2), np.array([0]), interactions([[]], 3))
    np.testing.assert_array_equal(found, [[False, False]])


@given(problems(), st.lists(st.integers(1, 14), min_size=1, max_size=3, unique=True))
def test_every_metric_follows_its_definition(problem: tuple, cutoffs: list[int]) -> None:
    lists, relevant, num_items, _ = problem
    top = as_top(lists, 14)
    popularity = np.arange(num_items)[::-1] ** 2
    per_user = metrics.evaluate(
        top, np.arange(len(lists)), interactions(relevant, num_items), popularity, cutoffs
    )
    counted = [u for u in range(len(lists)) if relevant[u]]
    assert len(per_user) == len(cutoffs) * (len(metrics.METRICS) + 1)
    for cutoff in cutoffs:
        for name in metrics.METRICS:
            np.testing.assert_allclose(
                per_user[f"{name}@{cutoff}"],
                [naive(name, lists[u], set(relevant[u]), cutoff) for u in counted],
                rtol=1e-12,
                err_msg=f"{name}@{cutoff}",
            )
        medians = [
            statistics.median(popularity[lists[u][:cutoff]].tolist()) if lists[u] else math.nan
            for u in counted
        ]
        np.testing.assert_array_equal(per_user[f"median_popularity@{cutoff}"], medians)


@pytest.mark.parametrize("cutoff", [1, 5, 10, 20])
def test_against_trec_eval(cutoff: int) -> None:
    random = np.random.default_rng(cutoff)
    num_users, num_items, width = 60, 40, 20
    relevant = [random.permutation(num_items)[: random.integers(1, 30)].tolist() for _ in range(60)]
    lists = [random.permutation(num_items)[: random.integers(0, width + 1)] for _ in range(60)]
    per_user = metrics.evaluate(
        as_top([items.tolist() for items in lists], width),
        np.arange(num_users),
        interactions(relevant, num_items),
        np.ones(num_items, int),
        [cutoff],
    )
    # An empty run is no run for trec_eval: the user's scores are then all 0.
    run = {
        str(u): {str(item): float(-rank) for rank, item in enumerate(items[:cutoff])}
        for u, items in enumerate(lists)
        if len(items)
    }
    wanted = {str(u): {str(item): 1 for item in items} for u, items in enumerate(relevant)}
    measures = [f"{name}.{cutoff}" for name in ("ndcg_cut", "map_cut", "P", "recall", "success")]
    scores = pytrec_eval.RelevanceEvaluator(wanted, {*measures, "recip_rank"}).evaluate(run)

    def trec(name: str) -> np.ndarray:
        return np.array([scores[str(u)][name] if str(u) in run else 0.0 for u in range(num_users)])

    same = {"ndcg": "ndcg_cut", "precision": "P", "recall": "recall", "hit_rate": "success"}
    for ours, theirs in same.items():
        np.testing.assert_allclose(
            per_user[f"{ours}@{cutoff}"], trec(f"{theirs}_{cutoff}"), atol=1e-9, err_msg=ours
        )
    np.testing.assert_allclose(per_user[f"mrr@{cutoff}"], trec("recip_rank"), atol=1e-9)
    # map_cut divides by all relevant items, ours by as many of them as the list can hold.
    number = np.array([len(items) for items in relevant])
    np.testing.assert_allclose(
        per_user[f"map@{cutoff}"] * np.minimum(number, cutoff) / number,
        trec(f"map_cut_{cutoff}"),
        atol=1e-9,
    )


def test_variants_of_the_hlr_paper_by_hand() -> None:
    # Hits at ranks 2 and 4 of 4; 5 relevant items.
    hits, number = np.array([[False, True, False, True]]), np.array([5])
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    assert metrics.ndcg_local(hits, number) == pytest.approx(gain / (1 + 1 / math.log2(3)))
    assert metrics.ndcg(hits, number) == pytest.approx(
        gain / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5))
    )
    assert metrics.mrr_all_hits(hits, number) == pytest.approx(1 / 2 + 1 / 4)
    assert metrics.mrr(hits, number) == pytest.approx(1 / 2)
    assert metrics.map_list_length(hits, number) == pytest.approx((1 / 2 + 2 / 4) / 4)
    # With 2 relevant items the standard average precision divides by 2 instead.
    assert metrics.average_precision(hits, np.array([2])) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_local_ndcg_leaves_users_without_a_hit_out_of_the_mean() -> None:
    top = as_top([[0, 1], [1, 0], [2, 1]], 2)
    per_user = metrics.evaluate(
        top, np.arange(3), interactions([[0], [0], [0]], 3), np.ones(3, int), [2]
    )
    np.testing.assert_allclose(per_user["ndcg_local@2"], [1, 1 / math.log2(3), np.nan])
    summary = metrics.summarize(per_user)
    assert summary["ndcg_local@2"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert summary["ndcg@2"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert metrics.summarize({"ndcg_local@2": np.array([np.nan])})["ndcg_local@2"] == 0


@pytest.mark.parametrize("name", [n for n in metrics.METRICS if n != "mrr_all_hits"])
def test_a_perfect_list_scores_one(name: str) -> None:
    hits, number = np.ones((1, 3), bool), np.array([3])
    assert metrics.METRICS[name](hits, number) == pytest.approx(1)


def test_users_without_relevant_items_are_not_counted() -> None:
    per_user = metrics.evaluate(
        as_top([[0], [0], [1]], 1),
        np.array([2, 0, 1]),
        interactions([[], [1], [0, 1]], 2),
        np.array([5, 7]),
        [1],
    )
    np.testing.assert_array_equal(per_user["recall@1"], [1 / 2, 1])
    np.testing.assert_array_equal(per_user["median_popularity@1"], [5, 7])
    assert metrics.summarize(per_user)["users"] == 2


def test_no_users_have_no_values() -> None:
    """As of a process whose users all lack relevant items, which joins those of the others."""
    nobody, popularity = np.zeros(0, np.int32), np.ones(4, int)
    relevant, cutoffs = interactions([[0], [2, 3]], 4), [1, 3]
    top = np.zeros((0, 3), np.int32)
    found = metrics.evaluate(top, nobody, relevant, popularity, cutoffs)
    some = metrics.evaluate(as_top([[2, 0, 1]], 3), np.array([1]), relevant, popularity, cutoffs)
    assert list(found) == list(some)
    for name, values in found.items():
        assert values.shape == (0,)
        assert np.concatenate([values, some[name]]).dtype == some[name].dtype
    assert not metrics.recommended(top, nobody, relevant, cutoffs).any()
    with pytest.raises(InputError, match=r"the lists hold 2 items, rank 3"):
        metrics.evaluate(top[:, :2], nobody, relevant, popularity, cutoffs)


def test_catalogue_counts_distinct_items_of_counted_users() -> None:
    top = as_top([[0, 1, 2], [0, 3], [4, 5, 3]], 3)
    relevant = interactions([[9], [9], []], 10)  # the last user is not counted
    popularity = np.array([100, 10, 20, 30, 1, 1, 1, 1, 1, 1])
    found = metrics.catalogue(top, np.arange(3), relevant, popularity, [1, 3])
    assert found == {
        "coverage@1": 0.1,
        "mmr@1": 100,
        "coverage@3": 0.4,
        "mmr@3": 25,  # of 100, 10, 20, 30
    }


def test_coverage_of_parts_of_the_users_can_be_joined() -> None:
    rng = np.random.default_rng(4)
    top = np.stack([rng.permutation(12)[:3] for _ in range(7)])
    top[2, 1:], users = -1, rng.permutation(7)
    relevant = interactions([[0], [], [3], [2, 5], [11], [], [7]], 12)
    popularity, cutoffs = rng.integers(0, 9, 12), [1, 3]
    parts = [slice(0, 3), slice(3, 3), slice(3, 7)]  # as of three processes, one without users
    found = [metrics.recommended(top[part], users[part], relevant, cutoffs) for part in parts]
    assert [part.shape for part in found] == [(2, 12)] * 3
    assert metrics.of_recommended(
        np.logical_or.reduce(found), popularity, cutoffs
    ) == metrics.catalogue(top, users, relevant, popularity, cutoffs)


def test_empty_lists_show_nothing_of_the_catalogue() -> None:
    relevant = interactions([[0]], 2)
    found = metrics.catalogue(as_top([[]], 2), np.array([0]), relevant, np.ones(2, int), [2])
    assert found == {"coverage@2": 0, "mmr@2": 0}


def test_a_cutoff_beyond_the_catalogue_fills_up_with_misses() -> None:
    per_user = metrics.evaluate(
        as_top([[1, 0]], 2), np.array([0]), interactions([[0, 1]], 2), np.ones(2, int), [5]
    )
    assert per_user["precision@5"] == pytest.approx(2 / 5)
    assert per_user["recall@5"] == per_user["ndcg@5"] == per_user["map@5"] == 1


def test_bad_input_is_named() -> None:
    relevant, popularity, user = interactions([[0], []], 5), np.ones(5, int), np.array([0])
    with pytest.raises(InputError, match="no user of the lists has a relevant item"):
        metrics.evaluate(as_top([[0]], 1), np.array([1]), relevant, popularity, [1])
    with pytest.raises(InputError, match=r"cutoffs=\(1, 3\): the lists hold 2 items, rank 3"):
        metrics.evaluate(as_top([[0, 1]], 2), user, relevant, popularity, [1, 3])
    with pytest.raises(InputError, match=r"item id 5 in the lists is outside 0\.\.4"):
        metrics.hits(as_top([[0, 5]], 2), user, relevant)
    with pytest.raises(InputError, match=r"user id 2 in the lists is outside 0\.\.1"):
        metrics.hits(as_top([[0]], 1), np.array([2]), relevant)


def test_shapes_are_checked_while_testing() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        metrics.recall(np.ones((3, 2), bool), np.ones(2, int))


def test_parse() -> None:
    assert metrics.parse("ndcg@10") == ("ndcg", 10)
    assert metrics.parse("mrr_all_hits@100") == ("mrr_all_hits", 100)


@pytest.mark.parametrize(
    "name", ["ndgc@10", "ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "@5", "", "coverage@5"]
)
def test_parse_lists_the_metrics_there_are(name: str) -> None:
    with pytest.raises(InputError) as error:
        metrics.parse(name)
    assert f"config.training.selection_metric={name!r}" in str(error.value)
    assert all(metric in str(error.value) for metric in metrics.METRICS)


def test_sampled_ranks_are_pessimistic_and_skip_the_ignored() -> None:
    positive = np.array([0.5, 0.5, 0.5, math.nan])
    negative = np.array([[0.1, 0.2], [0.5, 0.9], [0.5, 0.5], [0.1, 0.2]])
    np.testing.assert_array_equal(metrics.sampled_ranks(positive, negative), [1, 3, 3, 3])
    ignored = np.array([[False, False], [True, False], [True, True], [False, False]])
    np.testing.assert_array_equal(metrics.sampled_ranks(positive, negative, ignored), [1, 2, 1, 3])


def test_sampled_metrics() -> None:
    per_user = metrics.evaluate_sampled(np.array([1, 3, 11]), [2, 10])
    assert list(per_user) == [f"{n}@{k}" for k in (2, 10) for n in ("hit_rate", "ndcg", "mrr")]
    np.testing.assert_allclose(per_user["hit_rate@2"], [1, 0, 0])
    np.testing.assert_allclose(per_user["hit_rate@10"], [1, 1, 0])
    np.testing.assert_allclose(per_user["ndcg@10"], [1, 1 / 2, 0])
    np.testing.assert_allclose(per_user["mrr@10"], [1, 1 / 3, 0])
    with pytest.raises(InputError, match="no user has a test item"):
        metrics.evaluate_sampled(np.array([], int), [10])


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for repeat in range(200):
        sample = random.exponential(size=150)
        low, high = metrics.summarize({"ndcg@1": sample}, 200, seed=repeat)["intervals"]["ndcg@1"]
        assert low <= sample.mean() <= high
        covered += low <= 1 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_intervals_repeat_with_the_seed() -> None:
    values = {"ndcg@1": np.random.default_rng(0).random(50)}
    first, again, other = (metrics.summarize(values, 50, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]


def test_cohorts_are_disjoint_groups() -> None:
    rows = metrics.cohort_rows(23, 3, 7, seed=4)
    assert rows.shape == (3, 7)
    assert len(np.unique(rows)) == 21
    values = np.random.default_rng(0).random(23)
    values[rows[0, 0]] = np.nan
    summary = metrics.summarize({"ndcg@1": values}, seed=4, cohorts=3, cohort_size=7)
    means = np.nanmean(values[rows], axis=1)
    assert summary["cohorts"]["ndcg@1"] == pytest.approx({"mean": means.mean(), "std": means.std()})
    with pytest.raises(InputError, match=r"config\.evaluation\.cohorts=4: .* need 28 users"):
        metrics.summarize({"ndcg@1": values}, cohorts=4, cohort_size=7)


def test_the_legend_knows_every_metric() -> None:
    summary = [f"{name}@{cutoff}" for name in metrics.METRICS for cutoff in (5, 10)]
    assert list(metrics.legend(["users", *summary])) == list(metrics.METRICS)
    assert metrics.is_standard("ndcg@5")
    assert not metrics.is_standard("ndcg_local@5")

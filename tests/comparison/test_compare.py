"""Comparisons of small runs, against what is computed from the runs one by one."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
from scipy import stats
from support.small_runs import config_of, planted

import hlr_jax
from hlr_jax import baselines
from hlr_jax.baselines import Ease
from hlr_jax.comparison.procedure import over_seeds
from hlr_jax.config import DataConfig, EvaluationConfig
from hlr_jax.data import loading
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender

METRICS = ("ndcg@5", "recall@3")


def values_of(folder, metric, split="test", refitted=True):
    """Values of users, as evaluating this run alone gives them."""
    cutoff = int(metric.partition("@")[2])
    loaded = Recommender.load(folder, refitted=refitted)
    measured = loaded.with_evaluation(cutoffs=(cutoff,), bootstrap=0, per_user=True).evaluate(split)
    return np.array(measured["per_user"][metric], float)


@pytest.fixture(scope="module")
def found(runs):
    names = ("cml_1", "fast", "cml_2", "ease")
    return hlr_jax.compare([runs / name for name in names], metrics=METRICS)


def test_seeds_of_a_configuration_are_one_entry(found):
    assert [entry.name for entry in found.entries] == ["cml", "fast", "ease"]
    assert [entry.seeds for entry in found.entries] == [[1, 2], [1], [2]]
    assert [entry.kind for entry in found.entries] == ["run", "run", "baseline"]
    assert found.reference == "cml"


def test_means_are_those_of_the_runs(found, runs):
    for metric in METRICS:
        one, two, fast = (values_of(runs / name, metric) for name in ("cml_1", "cml_2", "fast"))
        cml = [(a + b) / 2 for a, b in zip(one.tolist(), two.tolist(), strict=True)]
        np.testing.assert_allclose(found.entries[0].values[metric], cml)
        np.testing.assert_allclose(found.entries[0].means[metric], np.mean(cml))
        np.testing.assert_allclose(found.entries[0].of_seeds[metric], [one.mean(), two.mean()])
        np.testing.assert_allclose(found.entries[1].means[metric], fast.mean())
        for entry in found.entries:
            low, high = entry.intervals[metric]
            assert 0 <= low <= entry.means[metric] <= high <= 1


def test_a_baseline_is_fitted_as_it_was(found, runs):
    stored = json.loads((runs / "ease" / "results.json").read_text())
    np.testing.assert_allclose(
        found.entries[2].means["ndcg@5"], stored["test"]["ndcg@5"], atol=1e-6
    )


def test_tests_are_paired_and_corrected(found, runs):
    for metric in METRICS:
        one, two, fast = (values_of(runs / name, metric) for name in ("cml_1", "cml_2", "fast"))
        cml = (one + two) / 2
        ease = found.entries[2].values[metric]
        pairs = [pair for pair in found.pairs if pair.metric == metric]
        assert [(pair.ours, pair.theirs) for pair in pairs] == [("fast", "cml"), ("ease", "cml")]
        raw = [stats.ttest_rel(ours, cml).pvalue for ours in (fast, ease)]
        small, large = min(raw), max(raw)
        corrected = {small: min(1, 2 * small), large: max(min(1, 2 * small), large)}
        for pair, ours, p in zip(pairs, (fast, ease), raw, strict=True):
            assert pair.users == 24
            np.testing.assert_allclose(pair.difference, np.mean(ours - cml))
            np.testing.assert_allclose(pair.p_value, p)
            np.testing.assert_allclose(pair.p_holm, corrected[p])
            of_users = list(zip(ours.tolist(), cml.tolist(), strict=True))
            np.testing.assert_allclose(pair.better, sum(a > b for a, b in of_users) / 24)
            np.testing.assert_allclose(pair.worse, sum(a < b for a, b in of_users) / 24)
            assert pair.interval[0] < pair.difference < pair.interval[1]


def test_the_reference_can_be_chosen(runs):
    folders = [runs / name for name in ("cml_1", "fast", "ease")]
    by_name = hlr_jax.compare(folders, metrics=["ndcg@5"], against="fast")
    assert [(p.ours, p.theirs) for p in by_name.pairs] == [("cml_1", "fast"), ("ease", "fast")]
    by_folder = hlr_jax.compare(folders, metrics=["ndcg@5"], against=str(runs / "fast"))
    assert by_folder.pairs == by_name.pairs
    pairs = hlr_jax.compare(folders, metrics=["ndcg@5"], against="all").pairs
    assert [(p.ours, p.theirs) for p in pairs] == [
        ("fast", "cml_1"),
        ("ease", "cml_1"),
        ("ease", "fast"),
    ]
    assert sorted(p.p_holm >= p.p_value for p in pairs) == [True] * 3


def test_seeds_in_another_order_make_no_difference():
    # The sums of .1, .2 and .3 in these orders are not equal.
    orders = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert sum(orders[0]) != sum(orders[1])
    one, two = (over_seeds([np.full(4, value) for value in order]) for order in orders)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(over_seeds([np.array([0.5, np.nan]), np.ones(2)]), [0.75, np.nan])


# --- what was trained on validation --------------------------------------------------------------


def test_a_refitted_model_is_not_measured_on_validation(runs):
    folders = [runs / "fast_refit", runs / "cml_1"]
    found = hlr_jax.compare(folders, "valid", ["ndcg@5"])
    selected = values_of(runs / "fast_refit", "ndcg@5", "valid", refitted=False)
    np.testing.assert_allclose(found.entries[0].values["ndcg@5"], selected)
    # On test it may be measured as it was before, beside others that have no refit.
    found = hlr_jax.compare(folders, "test", ["ndcg@5"], refitted=False)
    selected = values_of(runs / "fast_refit", "ndcg@5", "test", refitted=False)
    np.testing.assert_allclose(found.entries[0].values["ndcg@5"], selected)
    assert (selected != values_of(runs / "fast_refit", "ndcg@5")).any()


def test_refitted_models_are_compared_with_refitted_baselines(runs, tmp_path):
    config = Recommender.load(runs / "cml_1").config
    fixed = baselines.Tuning(fixed={"regularization": 30.0})
    baselines.tune_and_evaluate("ease", config, tmp_path / "ease", fixed, True, False)
    found = hlr_jax.compare([runs / "fast_refit", tmp_path / "ease"], metrics=["ndcg@5"])
    expected = values_of(runs / "fast_refit", "ndcg@5")
    np.testing.assert_allclose(found.entries[0].values["ndcg@5"], expected)
    data = loading.load(config.data)
    scorer = Ease(30.0).fit(data.train.union(data.valid), 2)
    evaluation = EvaluationConfig(cutoffs=(5,), bootstrap=0)
    mean = baselines.evaluate(scorer, data, evaluation)["ndcg@5"]
    np.testing.assert_allclose(found.entries[1].means["ndcg@5"], mean, atol=1e-6)


def test_held_out_users_who_validate_are_trained_on_by_what_is_refitted(tmp_path, monkeypatch):
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    pairs = np.argwhere(np.random.default_rng(0).random((40, 30)) < 0.4).tolist()
    lines = [f"{user},{item}" for user, item in pairs]
    (tmp_path / "all.csv").write_text("\n".join(["user,item", *lines]))
    config = dataclasses.replace(
        config_of("items_only", refit=True, selection_metric="ndcg@5"),
        data=DataConfig(
            name="file",
            path=str(tmp_path / "all.csv"),
            split="held_out_users",
            valid_fraction=0.4,
            test_fraction=0.2,
            core=0,
        ),
        evaluation=EvaluationConfig(cutoffs=(5,), bootstrap=0),
    )
    model = experiment.train_and_evaluate(config, tmp_path / "model", show_progress=False)
    fixed = baselines.Tuning(fixed={"regularization": 1.0})
    ease = baselines.tune_and_evaluate("ease", config, tmp_path / "ease", fixed, True, False)
    assert model["split_sizes"]["given"] > 0
    found = hlr_jax.compare([tmp_path / "model", tmp_path / "ease"], metrics=["ndcg@5"])
    for entry, stored in zip(found.entries, (model, ease), strict=True):
        assert entry.means["ndcg@5"] == pytest.approx(stored["test"]["ndcg@5"], abs=1e-6)


# --- values that are stored ----------------------------------------------------------------------


def mean_of_changed(folder, runs, **settings):
    found = hlr_jax.compare([folder, runs / "cml_1"], metrics=["ndcg@5"], **settings)
    return found.entries[0].means["ndcg@5"]


def test_stored_values_are_taken_while_they_are_valid(runs, changed):
    true = values_of(runs / "fast", "ndcg@5").mean()
    folder = changed("fast", "results.json", {"test.per_user.ndcg@5": [0.5] * 24})
    assert mean_of_changed(folder, runs) == 0.5
    # Of other test data; of a model that was trained on since.
    other = {"digests.test": "other"}
    assert mean_of_changed(changed("fast", "results.json", other), runs) == pytest.approx(true)
    shutil.rmtree(folder)
    older = {"test.per_user.ndcg@5": [0.5] * 24, "train.epochs": 2}
    assert mean_of_changed(changed("fast", "results.json", older), runs) == pytest.approx(true)


def test_values_of_a_refitted_model_are_not_those_of_the_selected_one(runs, changed):
    folder = changed("fast_refit", "results.json", {"test.per_user.ndcg@5": [0.5] * 24})
    true = values_of(runs / "fast_refit", "ndcg@5", refitted=False).mean()
    assert mean_of_changed(folder, runs, refitted=False) == pytest.approx(true)


def test_users_that_a_metric_leaves_out_are_left_out_of_tests(runs):
    found = hlr_jax.compare([runs / "cml_1", runs / "fast"], metrics=["ndcg_local@5"])
    one, two = (values_of(runs / name, "ndcg_local@5") for name in ("cml_1", "fast"))
    known = ~np.isnan(one) & ~np.isnan(two)
    assert found.pairs[0].users == known.sum() < 24
    assert found.entries[0].users("ndcg_local@5") == (~np.isnan(one)).sum()


def test_runs_on_data_given_in_python(tmp_path):
    for name, rate in (("slow", 0.01), ("quick", 0.3)):
        config = config_of(learning_rate=rate, epochs=1)
        experiment.train(config, tmp_path / name, planted(), show_progress=False)
    folders = [tmp_path / "slow", tmp_path / "quick"]
    found = hlr_jax.compare(folders, metrics=["ndcg@5"])
    assert found.dataset == "planted"
    assert [entry.name for entry in found.entries] == ["slow", "quick"]
    given = hlr_jax.compare(folders, metrics=["ndcg@5"], dataset=planted())
    assert given.pairs[0].difference == found.pairs[0].difference


# --- what it says --------------------------------------------------------------------------------


def test_the_frame_has_a_row_for_each_entry_metric_and_test(found):
    frame = found.frame
    assert frame["name"].to_list() == ["cml", "cml", "fast", "fast", "ease", "ease"]
    assert frame["metric"].to_list() == list(METRICS) * 3
    assert frame["against"].to_list() == [None, None] + ["cml"] * 4
    row = frame.row(2, named=True)
    assert row["mean"] == found.entries[1].means["ndcg@5"]
    assert row["difference"] == found.pairs[0].difference
    assert row["p_holm"] == found.pairs[0].p_holm


def test_it_writes_json_and_csv(found, tmp_path):
    found.write(tmp_path / "found.json")
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored == json.loads(json.dumps(found.as_dict()))
    assert stored["verdicts"] == found.verdicts
    assert [entry["seeds"] for entry in stored["entries"]] == [[1, 2], [1], [2]]
    assert len(stored["tests"]) == 4
    table = pl.read_csv(tmp_path / "found.csv")
    assert table.columns == found.frame.columns
    assert table["mean"].to_list() == found.frame["mean"].to_list()


def test_a_constant_relation_is_named(runs, changed):
    moves = {"diagnosis.moves.mean": 0.0123}
    folder = changed("lrml", "results.json", moves)
    found = hlr_jax.compare([runs / "cml_1", folder], metrics=["ndcg@5"])
    assert [entry.relation for entry in found.entries] == ["-", "constant (.012)"]
    assert "its relation is a constant" in found.verdicts[0]
    assert found.as_dict()["entries"][1]["diagnoses"][0]["moves"]["mean"] == 0.0123


def test_a_relation_that_results_do_not_tell_of_is_diagnosed(runs, changed):
    stored = hlr_jax.compare([runs / "cml_1", runs / "lrml"], metrics=["ndcg@5"]).entries[1]
    folder = changed("lrml", "results.json", {"diagnosis": None})
    found = hlr_jax.compare([runs / "cml_1", folder], metrics=["ndcg@5"]).entries[1]
    assert found.diagnoses == stored.diagnoses
    assert found.diagnoses[0].norm > 0

"""Tuning of baselines, their settings, and what a run writes."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from baseline_cases import ITEMS, USERS

from hlr_jax import baselines
from hlr_jax.baselines import Ease, ItemKNN, MostPopular, RP3Beta, Tuning
from hlr_jax.config import Config, DataConfig, EvaluationConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.tuning.search_space import Choice, Range


@pytest.mark.parametrize(
    "name", ["ease", "ials", "bpr", "item_knn", "slim", "rp3beta", "ials_scaled"]
)
def test_tuning_takes_the_best_trial_on_validation(name, dataset):
    method = baselines.METHODS[name]
    best, tried = baselines.tune(method, dataset, Tuning(4, "recall@3"), seed=1)
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
    again, _ = baselines.tune(method, dataset, Tuning(4, "recall@3"), seed=1)
    assert again == best


def test_trials_that_diverge_are_passed_over(dataset, monkeypatch):
    fit = Ease.fit

    def fit_or_diverge(self, train, seed=0):
        if self.regularization > 100:
            raise DivergedError("not finite")
        return fit(self, train, seed)

    monkeypatch.setattr(Ease, "fit", fit_or_diverge)
    best, tried = baselines.tune(Ease, dataset, Tuning(8, "recall@3"))
    values = [trial["recall@3"] for trial in tried]
    assert None in values
    assert best.regularization <= 100
    monkeypatch.setattr(Ease, "space", {"regularization": Range(200.0, 300.0)})
    with pytest.raises(DivergedError, match="none of 2 trials"):
        baselines.tune(Ease, dataset, Tuning(2, "recall@3"))


def test_what_cannot_be_tuned_is_refused(dataset):
    empty = Interactions.from_pairs(np.array([], int), np.array([], int), USERS, ITEMS)
    with pytest.raises(InputError, match="no validation split to tune on"):
        baselines.tune(Ease, dataclasses.replace(dataset, valid=empty), Tuning(2, "ndcg@3"))
    with pytest.raises(InputError, match="--select='best'"):
        baselines.tune(Ease, dataset, Tuning(2, "best"))
    with pytest.raises(InputError, match="--select=ndcg@100: a cutoff of 100"):
        baselines.tune(Ease, dataset, Tuning(2, "ndcg@100"))
    assert baselines.tune(MostPopular, dataset, Tuning(2)) == (MostPopular(), [])


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
        "ease", config, folder, Tuning(3, "ndcg@10"), show_progress=False
    )
    assert json.loads((folder / "results.json").read_text()) == results
    best = max(results["trials"], key=lambda trial: trial["ndcg@10"])
    assert results["hyperparameters"] == best["hyperparameters"]
    fixed = baselines.tune_and_evaluate(
        "ease", config, folder, Tuning(fixed=best["hyperparameters"]), show_progress=False
    )
    assert fixed["trials"] == []
    assert fixed["test"] == results["test"]
    refit = baselines.tune_and_evaluate(
        "ease",
        config,
        folder,
        Tuning(fixed=best["hyperparameters"]),
        refit=True,
        show_progress=False,
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
        baselines.parse(method, settings)
    assert fault in str(caught.value)


def test_settings_are_read_by_type():
    found = baselines.parse("ials", ["factors=32", "alpha=2"])
    assert found == {"factors": 32, "alpha": 2.0}
    assert [type(value) for value in found.values()] == [int, float]
    assert baselines.parse("item_knn", ["weighting=tfidf"]) == {"weighting": "tfidf"}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_hyperparameters_out_of_range_are_refused(value):
    with pytest.raises(InputError, match="use a number above 0"):
        Ease(regularization=value)
    with pytest.raises(InputError, match="weighting='jaccard': use one of cosine, tfidf, bm25"):
        ItemKNN(weighting="jaccard")
    if value:
        with pytest.raises(InputError, match="use 0 or a number above it"):
            RP3Beta(beta=value)
    else:
        assert RP3Beta(beta=value).beta == 0


def test_a_missing_optuna_is_reported(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'hlr_jax\[sweep\]'"):
        baselines.tune(Ease, dataset, Tuning(2, "ndcg@3"))

"""From a data set to recommendations and their metrics."""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest
from table_runs import ITEMS, USERS, config_of, hand_made, table_text, train

from hlr_jax import config as configs
from hlr_jax.config import Config, DataConfig, EvaluationConfig, LossConfig, SamplingConfig
from hlr_jax.data.loading import load
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory) -> Callable[[str], tuple[pathlib.Path, dict[str, Any]]]:
    """The folder and the results of a run of a model."""

    @functools.cache
    def run(model: str) -> tuple[pathlib.Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("runs") / model
        config = config_of(table, model)
        return folder, experiment.train_and_evaluate(config, folder, show_progress=False)

    return run


@pytest.fixture(scope="module")
def trained(runs) -> Callable[[str], Recommender]:
    return functools.cache(lambda model: Recommender.load(runs(model)[0]))


# --- recommendations -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_recommendations_are_the_best_of_what_a_user_has_not(model, trained):
    recommender = trained(model)
    dataset = recommender.dataset
    found = recommender.recommend(["u3", "u0"], k=ITEMS)
    assert found.columns == ["user", "rank", "item", "score"]
    assert found["user"].unique(maintain_order=True).to_list() == ["u3", "u0"]
    for user, rows in found.group_by("user"):
        row = dataset.user_index(user[0])
        parts = (dataset.train, dataset.valid, dataset.test)
        own = {item for part in parts for item in part.of(row).tolist()}
        untrained = np.flatnonzero(dataset.popularity == 0).tolist()
        expected = np.delete(dataset.item_ids, sorted({*own, *untrained}))
        assert sorted(rows["item"]) == sorted(expected.tolist())
        assert rows["rank"].to_list() == list(range(1, len(rows) + 1))
        assert rows["score"].is_sorted(descending=True)
    if model == "cml":
        u = np.asarray(recommender.params["user"][dataset.user_index("u3")])
        items = np.asarray(recommender.params["item"])
        distances = {i: ((u - x) ** 2).sum() for i, x in zip(dataset.item_ids, items, strict=True)}
        for item, score in found.filter(user="u3").select("item", "score").iter_rows():
            assert math.isclose(score, -distances[item], rel_tol=1e-4, abs_tol=1e-5)


def test_a_shorter_list_is_the_start_of_a_longer_one(trained):
    recommender = trained("hlr")
    long, short = (recommender.recommend(["u1", "u2"], k=k) for k in (6, 2))
    assert short["item"].equals(long.filter(pl.col("rank") <= 2)["item"])
    assert recommender.recommend([], k=3).height == 0


def test_titles_are_given_where_there_are_any(trained):
    recommender = trained("cml")
    titles = np.array([f"Title {item}" for item in recommender.dataset.item_ids])
    dataset = dataclasses.replace(recommender.dataset, item_titles=titles)
    found = dataclasses.replace(recommender, dataset=dataset).recommend(["u1"], k=3)
    assert found.columns == ["user", "rank", "item", "title", "score"]
    assert found["title"].to_list() == [f"Title {item}" for item in found["item"]]


def test_bad_questions_are_refused(trained):
    recommender = trained("cml")
    for users, k, fault in [
        (["u99"], 3, "user 'u99' is not in data set"),
        ([5], 3, "user 5 is not in data set"),
        (["u1"], 0, f"k=0: use 1 to {ITEMS}"),
        (["u1"], -1, f"k=-1: use 1 to {ITEMS}"),
        (["u1"], ITEMS + 1, f"k={ITEMS + 1}: use 1 to {ITEMS}"),
    ]:
        with pytest.raises(InputError, match=fault) as caught:
            recommender.recommend(users, k)
        assert "\n" not in str(caught.value)


# --- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_test_measures_are_those_of_the_recommendations(model, trained):
    recommender = trained(model)
    dataset, measures = recommender.dataset, recommender.evaluate("test")
    users = np.flatnonzero(dataset.test.counts)
    recall, ndcg = [], []
    for user in users.tolist():
        rows, _ = recommender.top_k(np.array([user], np.int32), 5, dataset.known("test"))
        wanted = set(dataset.test.of(user).tolist())
        hits = [item in wanted for item in rows[0].tolist()]
        recall.append(sum(hits) / len(wanted))
        ideal = sum(1 / math.log2(r + 2) for r in range(min(len(wanted), 5)))
        ndcg.append(sum(h / math.log2(r + 2) for r, h in enumerate(hits)) / ideal)
    assert measures["users"] == len(users)
    assert math.isclose(measures["recall@5"], np.mean(recall), abs_tol=1e-9)
    assert math.isclose(measures["ndcg@5"], np.mean(ndcg), abs_tol=1e-9)
    assert {"ndcg@3", "mrr@5", "recall@3"} <= measures.keys()
    low, high = measures["intervals"]["ndcg@5"]
    assert 0 <= low <= measures["ndcg@5"] <= high <= 1
    json.dumps(measures)


def test_measures_by_hand():
    recommender = hand_made()
    # Test ranks without train and valid: 2 | 2 3 | 0 1 | 0 1: ranks 1; 1 and 2; 1; 5.
    test = recommender.evaluate("test")
    assert test["users"] == 4
    assert test["recall@1"] == (1 + 1 / 2 + 1 + 0) / 4
    assert test["recall@2"] == (1 + 1 + 1 + 0) / 4
    assert test["mrr@2"] == 3 / 4
    # Validation leaves out training alone: 0 2 | 1 2.
    valid = recommender.evaluate("valid")
    assert valid["users"] == 2
    assert valid["recall@1"] == 1


def test_the_sampled_protocol_by_hand():
    # User 1 has two test items and user 3 lacks negatives: they are left out.
    # User 0: 2 among 1, 7, 2 (itself: ignored) and 5 is second. User 2: 0 among 4 4 5 6 is first.
    given = np.array([[1, 7, 2, 5], [4, 5, 6, 7], [4, 4, 5, 6], [-1, -1, 1, 2]], np.int32)
    recommender = hand_made(given_negatives=given)
    evaluation = EvaluationConfig(cutoffs=(1, 2), bootstrap=0, protocol="sampled", batch_size=1)
    config = dataclasses.replace(recommender.config, evaluation=evaluation)
    recommender = dataclasses.replace(recommender, config=config)
    measures = recommender.evaluate("test")
    assert measures["users"] == 2
    assert measures["hit_rate@1"] == 1 / 2
    assert measures["hit_rate@2"] == 1
    assert measures["mrr@2"] == (1 / 2 + 1) / 2
    assert math.isclose(measures["ndcg@2"], (1 / math.log2(3) + 1) / 2)
    with pytest.raises(InputError, match="negatives are given for the test split only"):
        recommender.evaluate("valid")
    assert recommender.with_evaluation(protocol="full").evaluate("valid")["users"] == 2


def test_values_of_each_user_by_hand():
    recommender = hand_made().with_evaluation(per_user=True)
    per_user = recommender.evaluate("test")["per_user"]
    # As above, user by user; who has no hit has no local NDCG.
    assert per_user["recall@1"] == [1, 0.5, 1, 0]
    assert per_user["ndcg_local@1"] == [1, 1, 1, None]
    assert "per_user" not in hand_made().evaluate("test")


def test_a_loaded_run_takes_other_evaluation_settings(runs):
    loaded = Recommender.load(runs("cml")[0])
    other = loaded.with_evaluation(cutoffs=[2], bootstrap=0, cohorts=3, cohort_size=4)
    measures = other.evaluate("test")
    assert "ndcg@2" in measures
    assert "ndcg@3" not in measures
    assert measures["cohorts"]["ndcg@2"].keys() == {"mean", "std"}
    assert "intervals" not in measures


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_a_loaded_run_measures_and_recommends_the_same(model, runs, table):
    folder, results = runs(model)
    loaded = Recommender.load(folder)
    assert loaded.evaluate("test") == results["test"]
    assert loaded.evaluate("valid") | {"loss": loaded.validation_loss()} == results["valid"]
    in_memory = train(config_of(table, model))
    assert loaded.recommend(["u1"], 5).equals(in_memory.recommend(["u1"], 5))
    assert json.loads((folder / "results.json").read_text()) == results


def test_a_folder_without_a_run_cannot_be_loaded(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: not found"):
        Recommender.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not valid JSON"):
        Recommender.load(tmp_path)
    values = configs.as_dict(Config(data=DataConfig(name="embedded")))
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"dataset\.json: not found"):
        Recommender.load(tmp_path)
    digest = load(DataConfig(name="embedded")).digest
    (tmp_path / "dataset.json").write_text(json.dumps({"digest": digest}))
    with pytest.raises(InputError, match="no checkpoint names the best epoch; nothing else"):
        Recommender.load(tmp_path)


def test_a_trained_model_does_not_need_the_file_but_resuming_does(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(table_text())
    trained = train(config_of(table), tmp_path / "run")
    measured = trained.evaluate("test")
    table.write_text(table_text() + "u77,777,5,1\nu77,778,5,2\nu77,101,5,3\n")
    with pytest.raises(InputError, match="trained on other data"):
        train(config_of(table), tmp_path / "run")
    table.unlink()
    loaded = Recommender.load(tmp_path / "run")
    assert loaded.recommend(["u1"], 5).equals(trained.recommend(["u1"], 5))
    assert loaded.evaluate("test") == measured


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_folder_that_lost_its_data_takes_them_from_the_file(harm, table, tmp_path):
    trained = train(config_of(table), tmp_path / "run")
    if harm == "gone":
        shutil.rmtree(tmp_path / "run" / "data")
    else:
        (tmp_path / "run" / "data" / "train_items.npy").write_bytes(b"")
    loaded = Recommender.load(tmp_path / "run")
    assert loaded.recommend(["u1"], 5).equals(trained.recommend(["u1"], 5))


def test_data_given_in_python_are_kept_and_checked(table, tmp_path):
    config = config_of(table)
    other = dataclasses.replace(load(config.data), user_ids=np.arange(USERS))
    trained = experiment.train(config, tmp_path / "run", other, show_progress=False)
    loaded = Recommender.load(tmp_path / "run")
    assert loaded.recommend([7], 5).equals(trained.recommend([7], 5))
    with pytest.raises(InputError, match="trained on other data"):
        Recommender.load(tmp_path / "run", dataset=load(config.data))


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        ("cml", LossConfig("warp", reduction="mean", covariance=0.1)),
        ("hlr", LossConfig(copy_relation=True, options={"margin": 0.0})),
    ],
)
def test_the_options_of_loss_and_sampling_train(model, loss, table):
    sampling = SamplingConfig(history_length=3, history="unpopular", options={"num_negatives": 3})
    params = train(config_of(table, model, loss=loss, sampling=sampling)).params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_run_on_a_relative_path_is_loaded_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "table.csv").write_text(table_text())
    monkeypatch.chdir(tmp_path)
    trained = train(config_of(pathlib.Path("table.csv")), tmp_path / "run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = Recommender.load(tmp_path / "run")
    assert loaded.recommend(["u1"], 3).equals(trained.recommend(["u1"], 3))


def test_one_id_is_not_a_list_of_ids(runs):
    with pytest.raises(InputError, match="users='u1': give a list of ids"):
        Recommender.load(runs("cml")[0]).recommend("u1", 3)

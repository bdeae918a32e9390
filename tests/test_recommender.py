"""From a data set to recommendations and their measures, and refusals of what cannot be used."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from hlr_jax import config as configs
from hlr_jax import models
from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.datasets import Dataset, load
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training import optimizers

USERS, ITEMS = 12, 20


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HLR_JAX_CACHE", str(folder / "cache"))
        patched.setenv("HLR_JAX_DATA", str(folder / "data"))
        yield


def table_text() -> str:
    """Users like the items of their parity, with ratings and times."""
    lines = [
        f"u{user},{item + 100},{1 + (user + item) % 5},{user * 7 + item}"
        for user in range(USERS)
        for item in range(ITEMS)
        if (user + item) % 2 == 0 and (user * 3 + item) % 5
    ]
    return "\n".join(["user,item,rating,time", *lines]) + "\n"


@pytest.fixture(autouse=True, scope="module")
def one_optimizer_per_configuration():
    """Programs are compiled for an optimizer object; tests of one configuration share it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(optimizers, "build", functools.cache(optimizers.build))
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text(table_text())
    return path


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


def config_of(path: pathlib.Path, model: str = "cml", **sections: Any) -> Config:
    fields: dict[str, Any] = {
        "data": DataConfig(name="file", path=str(path), core=0, split="per_user"),
        "model": ModelConfig(model, dim=4, options={} if model == "cml" else {"slots": 3}),
        "sampling": SamplingConfig(history_length=3),
        "optimizer": OptimizerConfig(learning_rate=0.05),
        "training": TrainingConfig(epochs=3, batch_size=32),
        "evaluation": EvaluationConfig(cutoffs=(3, 5), bootstrap=10),
    }
    return Config(**(fields | sections))


def train(config: Config, workdir: pathlib.Path | None = None) -> Recommender:
    return experiment.train(config, workdir, show_progress=False)


# --- recommendations -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_recommendations_are_the_best_of_what_a_user_has_not_touched(model, trained):
    recommender = trained(model)
    dataset = recommender.dataset
    found = recommender.recommend(["u3", "u0"], k=ITEMS)
    assert found.columns == ["user", "rank", "item", "score"]
    assert found["user"].unique(maintain_order=True).to_list() == ["u3", "u0"]
    for user, rows in found.group_by("user"):
        row = dataset.user_index(user[0])
        touched = {*dataset.train.of(row).tolist(), *dataset.valid.of(row).tolist()}
        expected = np.delete(dataset.item_ids, sorted(touched))
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


def test_titles_are_told_where_there_are_any(trained):
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
        rows = recommender.recommend([str(dataset.user_ids[user])], k=5)
        wanted = set(dataset.item_ids[dataset.test.of(user)].tolist())
        hits = [item in wanted for item in rows["item"]]
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


def hand_made(**fields: Any) -> Recommender:
    """CML with users and items on a line: item n is at n / 10, all users are at 0."""
    data = {
        "train": [[1], [0], [2, 3], [4]],
        "valid": [[0], [1], [], []],
        "test": [[2], [2, 3], [0], [5]],
    }
    parts = {}
    for name, items_of in data.items():
        users = [user for user, items in enumerate(items_of) for _ in items]
        flat = [item for items in items_of for item in items]
        parts[name] = Interactions.from_pairs(np.array(users), np.array(flat), 4, 8)
    ids = {"user_ids": np.arange(4), "item_ids": np.arange(8)}
    dataset = Dataset("by hand", **parts, **ids, **fields)
    config = Config(
        model=ModelConfig("cml", dim=1), evaluation=EvaluationConfig(cutoffs=(1, 2), bootstrap=0)
    )
    items = jnp.arange(8, dtype=jnp.float32)[:, None] / 10
    params = {"user": jnp.zeros((4, 1)), "item": items, "relation": {}}
    return Recommender.of(config, dataset, models.build("cml", 1, {}), params)


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
    with pytest.raises(InputError, match="there is no checkpoint; train first"):
        Recommender.load(tmp_path)


def test_a_table_that_changed_since_is_noticed(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(table_text())
    train(config_of(table), tmp_path / "run")
    table.write_text(table_text() + "u77,777,5,1\nu77,778,5,2\nu77,101,5,3\n")
    with pytest.raises(InputError, match="trained on other data"):
        Recommender.load(tmp_path / "run")
    with pytest.raises(InputError, match="trained on other data"):
        train(config_of(table), tmp_path / "run")


def test_data_given_in_python_must_be_given_again(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(table_text())
    other = load(DataConfig(name="embedded"))
    trained = experiment.train(config_of(table), tmp_path / "run", other, show_progress=False)
    with pytest.raises(InputError, match="trained on other data"):
        Recommender.load(tmp_path / "run")
    loaded = Recommender.load(tmp_path / "run", dataset=other)
    assert loaded.recommend([7], 5).equals(trained.recommend([7], 5))


# --- bad input -----------------------------------------------------------------------------------


def refused(values: dict[str, Any], workdir: pathlib.Path) -> str:
    """The error of a run with these changed fields, `section.name` to value."""
    nested = configs.as_dict(Config())
    for name, value in values.items():
        section, field = name.split(".")
        nested[section][field] = value
    with pytest.raises(InputError) as caught:
        train(configs.from_config_dict(nested), workdir)
    assert "\n" not in str(caught.value)
    assert not workdir.exists()
    return str(caught.value)


SMALL = {
    "data.name": "file",
    "data.core": 0,
    "model.name": "hlr",
    "model.dim": 4,
    "sampling.history_length": 3,
    "evaluation.cutoffs": (3,),
    "training.epochs": 1,
}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"model.dims": 3}, "config.model.dims: there is no such field; did you mean dim?"),
        ({"training.epoch": 3}, "config.training.epoch: there is no such field"),
        ({"model.name": "mf"}, f"config.model.name='mf': use one of {', '.join(models.names())}"),
        ({"model.dim": 0}, "config.model.dim=0: the embedding size must be at least 1"),
        ({"model.slots": 0}, "config.model.slots=0: use at least 1"),
        ({"model.clip_norm": 0.0}, "config.model.clip_norm=0.0"),
        ({"loss.margin": -0.5}, "config.loss.margin=-0.5: the margin must not be negative"),
        ({"sampling.negatives": 0}, "config.sampling.negatives=0"),
        ({"sampling.history_length": 0}, "config.sampling.history_length=0"),
        (
            {"sampling.history_length": 21},
            "config.sampling.history_length=21: the catalogue has 20 items",
        ),
        ({"evaluation.cutoffs": (3, 21)}, "config.evaluation.cutoffs: a cutoff of 21 is more than"),
        ({"evaluation.cutoffs": (0,)}, "config.evaluation.cutoffs=(0,)"),
        ({"evaluation.cohorts": 5, "evaluation.cohort_size": 9}, "cohorts"),
        ({"evaluation.protocol": "sampled"}, "config.evaluation.protocol='sampled'"),
        ({"training.select": "ndcg@21"}, "config.training.select: a cutoff of 21 is more than"),
        ({"training.select": "ndgc@10"}, "config.training.select='ndgc@10'"),
        ({"training.batch_size": 0}, "config.training.batch_size=0"),
        ({"optimizer.name": "adm"}, "config.optimizer.name='adm': use one of adam"),
        ({"optimizer.learning_rate": 0.0}, "config.optimizer.learning_rate=0.0"),
        ({"data.core": 50}, "config.data.core: no interaction is left"),
        ({"data.min_rating": 9.0, "data.rating_column": "rating"}, "config.data.min_rating=9.0"),
        ({"data.path": "nowhere.csv"}, "nowhere.csv"),
        ({"data.path": ""}, "config.data.path=''"),
        ({"data.item_column": "movie"}, "item column 'movie'"),
        ({"data.rating_column": "stars"}, "rating column 'stars'"),
        ({"data.split": "leave_one_out"}, "no timestamps"),
        ({"data.predefined": "nowhere"}, "config.data.predefined='nowhere'"),
        ({"data.name": "no_such_data"}, "config.data.name='no_such_data'"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_is_written(changed, fault, table, tmp_path):
    message = refused(SMALL | {"data.path": str(table)} | changed, tmp_path / "run")
    assert fault in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("user,item,rating\nu1,1,5\nu2,2,nan\n", "line 3"),
        ("user,item,rating\nu1,1,5\nu2,,4\n", "line 3"),
        ("user,item,rating\nu1,1,5\nu2,2\n", "line 3"),
        ("user,item,rating\n", "has no interactions"),
        ("", "table.csv"),
        ("user,item,rating\nu1,1,5\nu2,2,4\n", "too few"),
        ("user,item,rating\n1,1,5\n-2,2,4\n", "line 3: user -2 is negative"),
        ("user,item,rating\n1,1,5\n2,-2,4\n", "line 3: item -2 is negative"),
    ],
    ids=[
        "NaN rating",
        "no item",
        "a field too few",
        "only a header",
        "empty",
        "two rows",
        "negative user",
        "negative item",
    ],
)
def test_a_bad_table_is_refused_before_anything_is_written(text, fault, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    changed = {"data.path": str(path), "data.rating_column": "rating"}
    message = refused(SMALL | changed, tmp_path / "run")
    assert fault in message
    assert str(path) in message or "config.data" in message


def test_a_split_without_test_users_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("user,item\n" + "".join(f"u{n},{n % 3}\n" for n in range(9)))
    changed = {"data.path": str(path), "data.split": "per_user"}
    assert "no user has enough interactions" in refused(SMALL | changed, tmp_path / "run")
    table = hand_made().dataset
    nothing = Interactions.from_pairs(np.zeros(0), np.zeros(0), 4, 8)
    recommender = dataclasses.replace(hand_made(), dataset=dataclasses.replace(table, test=nothing))
    with pytest.raises(InputError, match="no user has an item in the test split"):
        recommender.evaluate("test")


def test_a_user_who_has_everything_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    rows = [(user, item) for user in range(6) for item in range(6) if user == 0 or item % 2]
    path.write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    split = tmp_path / "split"
    split.mkdir()
    for name, part in (("train", rows[:-2]), ("test", rows[-2:])):
        text = "user,item\n" + "".join(f"{u},{i}\n" for u, i in part)
        (split / f"{name}.csv").write_text(text)
    changed = {"data.predefined": str(split), "data.valid_fraction": 0.01}
    assert "user 0 has touched all 6 items" in refused(SMALL | changed, tmp_path / "run")


def test_a_workdir_that_cannot_be_made_is_refused(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*cannot be written to"):
        train(config_of(table), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        ("cml", LossConfig(reduction="mean", rank_weight=True, covariance=0.1)),
        ("hlr", LossConfig(copy_relation=True, margin=0.0)),
    ],
)
def test_the_options_of_loss_and_sampling_train(model, loss, table):
    sampling = SamplingConfig(negatives=3, history_length=3, history="unpopular")
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
    with pytest.raises(InputError, match="users='u1': give a list of user ids"):
        Recommender.load(runs("cml")[0]).recommend("u1", 3)

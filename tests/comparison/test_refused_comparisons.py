"""What cannot be compared is refused in one line that says what to do."""

import dataclasses
import shutil

import numpy as np
import pytest
from comparison.conftest import without_last
from support.small_runs import config_of, planted

import hlr_jax
from hlr_jax.data import loading
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment


def assert_refused(folders, *parts, **settings):
    settings = {"metrics": ["ndcg@5"]} | settings
    with pytest.raises(InputError) as caught:
        hlr_jax.compare(folders, **settings)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture
def older(changed):
    """Copies and changes a run as `changed`; it keeps no data, as runs once did."""

    def change(name, file, fields):
        folder = changed(name, file, fields)
        shutil.rmtree(folder / "data")
        return folder

    return change


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"metrics": ["ndcg"]}, "--metrics='ndcg': use a metric and a cutoff like ndcg@10"),
        ({"metrics": ["coverage@5"]}, "the metrics are ndcg, recall"),
        ({"metrics": ["ndcg@5", "recall@31"]}, "a cutoff of 31 is more than the catalogue's 30"),
        ({"metrics": ["ndcg_local@1"]}, "--metrics=ndcg_local@1: fewer than two users"),
        ({"against": "slow"}, "--against=slow: use all, or one of cml_1, fast"),
        ({"split": "train"}, "split='train': use valid or test"),
    ],
)
def test_questions_that_have_no_answer(runs, settings, fault):
    assert_refused([runs / "cml_1", runs / "fast"], fault, **settings)


def test_too_little_to_compare(runs):
    assert_refused([runs / "cml_1"], "there is nothing to compare: give two folders or more")
    assert_refused([], "there is nothing to compare")
    assert_refused([runs / "cml_1", runs / "cml_2"], "those given are seeds of cml")
    assert_refused(str(runs / "cml_1"), "give a list of folders")


def test_the_same_folder_twice(runs, tmp_path):
    (tmp_path / "link").symlink_to(runs / "cml_1")
    assert_refused([runs / "cml_1", runs / "fast", tmp_path / "link"], "is given twice")


def test_folders_without_a_run(runs, tmp_path):
    fault = "holds neither a training run (config.json) nor the results of a baseline"
    assert_refused([runs / "cml_1", tmp_path], f"{tmp_path}: {fault}", "hlr-jax baseline")
    assert_refused([runs / "cml_1", tmp_path / "nowhere"], fault)
    (tmp_path / "results.json").write_text("{")
    assert_refused([runs / "cml_1", tmp_path], "results.json: not valid JSON")
    (tmp_path / "results.json").write_text('{"baseline": "ease"}')
    assert_refused([runs / "cml_1", tmp_path], "has no data; run hlr-jax baseline again")


def test_an_unfinished_run(runs, changed):
    longer = changed("fast", "config.json", {"training.epochs": 9})
    assert_refused([runs / "cml_1", longer], "was trained for 3 of 9 epochs; the same training")


def test_a_run_whose_refit_is_unfinished(runs, changed):
    unfinished = changed("fast_refit", "config.json", {})
    shutil.rmtree(unfinished / "refit")
    (unfinished / "results.json").unlink()
    assert_refused([unfinished, runs / "fast"], "refit", refitted=True)
    hlr_jax.compare([unfinished, runs / "fast"], metrics=["ndcg@5"], refitted=False)


@pytest.mark.parametrize("part", ["train", "test"])
def test_runs_on_other_data(runs, tmp_path, part):
    dropped = without_last(getattr(planted(), part))
    other = dataclasses.replace(planted(), **{part: dropped})
    experiment.train(config_of(epochs=1), tmp_path / "other", other, show_progress=False)
    fault = f"{tmp_path / 'other'}: has other {part} interactions than"
    assert_refused([runs / "cml_1", tmp_path / "other"], fault, "the same config.data")


def test_the_same_data_from_elsewhere_are_the_same(runs, tables, older):
    folder = older("fast", "config.json", {"data.predefined": str(tables / "moved")})
    found = hlr_jax.compare([runs / "cml_1", folder], metrics=["ndcg@5"])
    usual = hlr_jax.compare([runs / "cml_1", runs / "fast"], metrics=["ndcg@5"])
    assert found.pairs[0].difference == usual.pairs[0].difference


def test_data_that_have_changed_since(runs, tables, older):
    other = {"data.predefined": str(tables / "other_train")}
    two = [older(name, "config.json", other) for name in ("cml_1", "fast")]
    assert_refused(two, "trained on other data than data set other_train is now")


def test_a_baseline_on_other_data(runs, tables, changed):
    ease = changed("ease", "results.json", {"data.predefined": str(tables / "other_train")})
    assert_refused([runs / "cml_1", ease], f"{ease}: has other train interactions than")
    assert_refused([ease, runs / "cml_1"], f"cml_1: has other train interactions than {ease}")


def test_features_alone_make_no_other_data(runs, monkeypatch):
    load = loading.load
    found = load(hlr_jax.Recommender.load(runs / "fast").config.data)
    from hlr_jax.comparison import procedure

    with_features = np.ones((found.num_items, 2), np.float32)
    featured = type(found)(**{**vars(found), "features": with_features, "_stored": None})
    assert featured.digest != found.digest
    assert not procedure._differing(found, featured)


def test_data_that_differ_in_what_is_given_alone():
    from hlr_jax.comparison import procedure

    more = dataclasses.replace(planted(), given=planted().train)
    assert procedure._differing(planted(), more) == "given interactions"


def test_different_protocols(runs, changed):
    sampled = changed("fast", "config.json", {"evaluation.protocol": "sampled"})
    assert_refused([runs / "cml_1", sampled], "is full and", "is sampled; measure them alike")
    two = [sampled, changed("cml_1", "config.json", {"evaluation.protocol": "sampled"})]
    fault = "the sampled protocol has hit_rate, ndcg, mrr only"
    assert_refused(two, fault, metrics=["recall@5"])
    # On validation the whole catalogue is ranked, whatever the protocol on test.
    hlr_jax.compare(two, "valid", ["recall@5"])


def test_training_with_and_without_validation(runs, changed):
    assert_refused(
        [runs / "cml_1", runs / "fast_refit"],
        "fast_refit was trained on validation too and",
        "cml_1 was not; refit all",
        "--refitted=false",
    )
    joined = changed("fast", "config.json", {"data.join_valid": True})
    assert_refused([runs / "cml_1", joined], "was trained on validation too")
    assert_refused([runs / "cml_1", joined], "use --split=test", split="valid")


def test_baselines_of_another_protocol_or_refit(runs, changed):
    refit = changed("ease", "results.json", {"refit": True})
    assert_refused([runs / "cml_1", refit], "was trained on validation too", "--refit for a base")
    refit = changed("ease", "results.json", {"refit": False, "test.protocol": "sampled"})
    assert_refused([runs / "cml_1", refit], "config.evaluation.protocol")

"""A selected model that is trained again on training and validation together."""

import dataclasses
import itertools
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from support.small_runs import (
    ITEMS,
    USERS,
    assert_same,
    config_of,
    differ,
    interrupt_after,
    planted,
    read_log,
)

from hlr_jax.config import Config, DataConfig
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment, manifests
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.workdir import load_config
from hlr_jax.training import loop

EPOCHS, BEST = 4, 2


def script(patched: pytest.MonkeyPatch) -> None:
    """Make the second of four epochs the best."""
    losses = itertools.cycle([3.0, 1.0, 2.0, 2.5])

    def validation(program: loop.Program, dataset: Dataset) -> Any:
        return lambda params: {"loss": next(losses)} if len(dataset.valid) else {}

    patched.setattr(experiment, "_validation", validation)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch)


def refit_config(epochs: int = EPOCHS, **fields: Any) -> Config:
    return config_of(epochs=epochs, refit=True, **fields)


def train(config: Config, workdir: pathlib.Path | None = None) -> Recommender:
    return experiment.train(config, workdir, planted(), show_progress=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a finished run."""
    workdir = tmp_path_factory.mktemp("refit") / "run"
    with pytest.MonkeyPatch.context() as patched:
        script(patched)
        train(refit_config(), workdir)
    return workdir


# --- joined data ---------------------------------------------------------------------------------


def test_joined_data_has_validation_in_training_and_is_other_data():
    joined = planted().joined()
    pairs = {(u, i) for part in (planted().train, planted().valid) for u, i in pairs_of(part)}
    assert set(pairs_of(joined.train)) == pairs
    assert joined.split_sizes == {"train": len(pairs), "valid": 0, "test": len(planted().test)}
    assert joined.test is planted().test
    assert joined.digest != planted().digest
    np.testing.assert_array_equal(joined.popularity, joined.train.popularity)


def pairs_of(part: Interactions) -> list[tuple[int, int]]:
    return list(zip(part.users.tolist(), part.items.tolist(), strict=True))


def test_a_configuration_joins_data_that_was_prepared_and_kept(tmp_path, monkeypatch):
    """What is kept in the cache is the split itself: popularity and digest follow it."""
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    rows = [f"{u},{i}" for u in range(10) for i in range(12) if (u + i) % 3 and i != u]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "\n".join(rows))
    config = DataConfig(name="file", path=str(tmp_path / "pairs.csv"), core=0)
    for _ in range(2):  # prepared, then read from the cache
        apart = loading.load(config, progress=False)
        joined = loading.load(dataclasses.replace(config, join_valid=True), progress=False)
        assert len(apart.valid) > 0
        assert joined.split_sizes == apart.joined().split_sizes
        assert joined.digest == apart.joined().digest != apart.digest
        np.testing.assert_array_equal(
            joined.popularity, apart.train.popularity + apart.valid.popularity
        )
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 1


# --- what is trained -----------------------------------------------------------------------------


def test_it_is_a_run_on_both_splits_for_as_many_epochs_as_were_best():
    found = train(refit_config())
    alone = config_of(epochs=BEST)
    expected = experiment.train(alone, None, planted().joined(), show_progress=False)
    assert_same(found.params, expected.params)
    assert found.dataset.split_sizes == planted().joined().split_sizes
    assert differ(found.params, train(config_of(epochs=EPOCHS)).params)


def test_the_learning_rate_falls_as_it_did_to_the_best_epoch():
    """A cosine over the four epochs that were planned, of which the refit goes through two."""
    config = refit_config()
    cosine = dataclasses.replace(config.optimizer, schedule="cosine")
    found = train(dataclasses.replace(config, optimizer=cosine))
    two = dataclasses.replace(cosine, schedule_epochs=EPOCHS)
    alone = dataclasses.replace(config_of(epochs=BEST), optimizer=two)
    expected = experiment.train(alone, None, planted().joined(), show_progress=False)
    assert_same(found.params, expected.params)


def test_more_epochs_go_on_in_the_folder_of_both_halves(run, tmp_path):
    """The losses that the script gives to two more epochs are no better: the best stays."""
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    expected = Recommender.load(run, planted()).params
    longer = train(refit_config(epochs=EPOCHS + 2), tmp_path)
    assert_same(longer.params, expected)
    assert len(read_log(tmp_path)) == EPOCHS + 2
    assert load_config(tmp_path / "refit").optimizer.schedule_epochs == 0


def test_a_folder_has_both_halves(run):
    selected = train(config_of(epochs=EPOCHS))
    refitted = train(refit_config())
    assert_same(Recommender.load(run, planted(), refitted=False).params, selected.params)
    found = Recommender.load(run, planted())
    assert_same(found.params, refitted.params)
    assert differ(found.params, selected.params)
    assert found.dataset.split_sizes["valid"] == 0
    # The folder of the second half is one of a run by itself.
    assert_same(Recommender.load(run / "refit", planted().joined()).params, refitted.params)
    assert [record["epoch"] for record in read_log(run)] == [1, 2, 3, 4]
    assert [record["epoch"] for record in read_log(run / "refit")] == [1, 2]
    again = load_config(run / "refit")
    assert (again.training.refit, again.data.join_valid) == (False, True)
    assert (again.training.epochs, again.seed) == (BEST, load_config(run).seed)


def test_other_data_is_refused(run):
    one = Interactions.from_pairs(np.array([0]), np.array([1]), USERS, ITEMS)
    other = dataclasses.replace(planted(), train=planted().train.union(one))
    for refitted in (True, False):
        with pytest.raises(InputError, match="the run was trained on other data"):
            Recommender.load(run, other, refitted=refitted)


def test_a_run_without_is_loaded_either_way(tmp_path):
    params = train(config_of(epochs=1), tmp_path).params
    for refitted in (True, False):
        assert_same(Recommender.load(tmp_path, planted(), refitted=refitted).params, params)
    assert not (tmp_path / "refit").exists()


def test_validation_is_of_the_chosen_and_test_of_the_refitted_model(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: planted())
    evaluation = dataclasses.replace(Config().evaluation, cutoffs=(3,), bootstrap=0)
    config = dataclasses.replace(refit_config(), evaluation=evaluation)
    results = experiment.train_and_evaluate(config, tmp_path, show_progress=False)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    selected = Recommender.load(tmp_path, refitted=False)
    refitted = Recommender.load(tmp_path)
    valid = {"loss": selected.validation_loss()} | selected.evaluate("valid")
    assert results["valid"] == valid
    assert results["test"] == refitted.evaluate("test")
    assert results["test"] != selected.evaluate("test")
    assert results["split_sizes"] == planted().split_sizes
    assert (results["train"]["epochs"], results["train"]["best_epoch"]) == (EPOCHS, BEST)
    assert (results["refit"]["epochs"], results["refit"]["warnings"]) == (BEST, [])


def test_what_went_wrong_in_either_half_is_in_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: planted())
    monkeypatch.setattr(loop.motion, "is_watched", lambda *_: True)
    monkeypatch.setattr(loop.motion, "fault", lambda *_: "rows leap")
    results = experiment.train_and_evaluate(refit_config(), tmp_path, show_progress=False)
    for half, epochs in (("train", EPOCHS), ("refit", BEST)):
        (warning,) = results[half]["warnings"]
        assert "in epoch 1 rows leap" in warning
        assert (results[half]["epochs"], results[half]["rollbacks"]) == (epochs, 0)


# --- interruption --------------------------------------------------------------------------------


# The host looks once a step, and once more at the end of an epoch.
FIRST_EPOCH, SECOND_EPOCH = 12 + 1, 13 + 1


@pytest.mark.parametrize(
    ("looks", "first", "second"),
    [
        pytest.param(2 * FIRST_EPOCH + 5, 2, None, id="in the first half"),
        pytest.param(4 * FIRST_EPOCH, 4, None, id="between the halves"),
        pytest.param(4 * FIRST_EPOCH + 4, 4, 0, id="in the second half"),
        pytest.param(4 * FIRST_EPOCH + SECOND_EPOCH + 4, 4, 1, id="in the last epoch of all"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(looks, first, second, run, tmp_path, monkeypatch):
    config, folders = refit_config(), (tmp_path, tmp_path / "refit")
    with monkeypatch.context() as patched:
        interrupt_after(patched, looks)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    for folder, epochs in zip(folders, (first, second), strict=True):
        assert (folder / "config.json").exists() == (epochs is not None)
        assert len(read_log(folder)) == (epochs or 0)
    if second is None:
        with pytest.raises(InputError, match=r"refit.config\.json: not found"):
            Recommender.load(tmp_path, planted())
    found = train(config, tmp_path)
    for refitted in (True, False):
        expected = Recommender.load(run, planted(), refitted=refitted).params
        assert_same(Recommender.load(tmp_path, planted(), refitted=refitted).params, expected)
    assert_same(found.params, Recommender.load(run, planted()).params)
    for folder, whole in zip(folders, (run, run / "refit"), strict=True):
        assert read_log(folder) == read_log(whole)


def test_a_finished_run_is_trained_no_further(run, monkeypatch):
    expected = Recommender.load(run, planted()).params

    def advance(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained on")

    monkeypatch.setattr(loop, "advance", advance)
    assert_same(train(refit_config(), run).params, expected)


# --- what cannot be ------------------------------------------------------------------------------


def test_without_a_validation_split_there_is_nothing_to_refit(tmp_path):
    with pytest.raises(InputError, match=r"config\.training\.refit=True: data set planted has no"):
        experiment.train(refit_config(), tmp_path / "run", planted().joined(), show_progress=False)
    assert not (tmp_path / "run").exists()


def test_another_folder_s_run_is_not_refitted_in_place(run, tmp_path):
    """A finished run without a second half is another configuration."""
    train(config_of(epochs=1), tmp_path)
    with pytest.raises(InputError, match=r"config\.training\.refit=False, not True"):
        train(refit_config(epochs=1), tmp_path)


# --- tables of such a run ------------------------------------------------------------------------


def load_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of what a run's configuration says."""
    monkeypatch.setattr(
        loading,
        "load",
        lambda config, progress=True: planted().joined() if config.join_valid else planted(),
    )


def test_pretrained_tables_have_not_seen_what_selects(run, monkeypatch):
    """The first half starts from the chosen tables, the second from the refitted ones."""
    load_planted(monkeypatch)
    chosen, refitted = (
        Recommender.load(run, planted(), refitted=refitted).params for refitted in (False, True)
    )
    frozen = {"pretrained": str(run), "freeze_user": True, "freeze_item": True}
    again = refit_config(**frozen)
    first, _ = experiment._train(again, None, planted(), experiment._Request(show_progress=False))
    assert_same(first.params, chosen)
    assert_same(train(again).params, refitted)
    alone = config_of(**frozen)
    assert_same(train(alone).params, chosen)
    joined = dataclasses.replace(alone, data=dataclasses.replace(alone.data, join_valid=True))
    found = experiment.train(joined, None, planted().joined(), show_progress=False)
    assert_same(found.params, refitted)


def test_tables_that_saw_what_is_held_out_are_refused(run, monkeypatch):
    """The refitted half itself, or a run on joined data: what selects would be known already."""
    load_planted(monkeypatch)
    pretrained = config_of(pretrained=str(run / "refit"))
    with pytest.raises(InputError, match=r"was trained on validation interactions of this one"):
        train(pretrained)


def test_an_unfinished_refit_is_not_taken_for_a_model(run, tmp_path):
    """By its state: a log that is lost says nothing."""
    folder = shutil.copytree(run, tmp_path / "run") / "refit"
    (folder / "metrics.jsonl").unlink()
    assert Recommender.load(tmp_path / "run", planted()).params
    for path in (folder / "checkpoints" / "latest").iterdir():
        manifest = manifests.read(path)
        earlier = manifest.progress._replace(epochs=1)
        manifests.write(path, dataclasses.replace(manifest, progress=earlier))
    with pytest.raises(InputError, match=r"refit: was trained for 1 of 2 epochs; the same"):
        Recommender.load(tmp_path / "run", planted())
    assert Recommender.load(tmp_path / "run", planted(), refitted=False).dataset.valid

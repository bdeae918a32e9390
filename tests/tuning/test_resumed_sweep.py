"""Sweeps that are stopped, killed and resumed, and the folders that hold them."""

import sqlite3

import numpy as np
import polars as pl
import pytest
from sweeps import ITEMS, MARGIN, USERS, config_of, tried, value_of

from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError


def test_a_resumed_sweep_tries_what_it_would_have_tried(scripted, tmp_path):
    whole = scripted(tmp_path / "whole", value_of, trials=12)
    for trials in (2, 11, 12, 12):
        parts = scripted(tmp_path / "parts", value_of, trials=trials)
        assert len(parts.trials) == trials
    assert tried(parts) == tried(whole)
    margins = [trial.parameters["loss.margin"] for trial in whole.trials]
    assert len(set(margins)) == 12
    assert all(0.2 <= margin <= 2.0 for margin in margins)
    # Another seed tries something else.
    other = scripted(tmp_path / "other", value_of, trials=1, config=config_of(seed=1))
    assert tried(other)[0] != tried(whole)[0]


def test_an_interrupted_trial_does_not_count_and_is_tried_again(scripted, tmp_path):
    whole = scripted(tmp_path / "whole", value_of, trials=4)
    started = []

    def interrupted(config):
        started.append(config)
        yield from value_of(config)
        if len(started) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command"):
        scripted(tmp_path / "s", interrupted, trials=4)
    table = pl.read_csv(tmp_path / "s" / "trials.csv")
    assert table["state"].to_list() == ["complete", "complete", "interrupted"]
    outcome = scripted(tmp_path / "s", value_of, trials=4)
    assert [t.state for t in outcome.trials] == [
        *["complete"] * 2,
        "interrupted",
        *["complete"] * 2,
    ]
    assert tried(outcome) == tried(whole)
    assert 2 not in [trial.number for trial in outcome.ranked]


def test_a_killed_trial_does_not_count(scripted, tmp_path):
    scripted(tmp_path, value_of, trials=2)
    # As a process leaves it that was killed in the second trial.
    with sqlite3.connect(tmp_path / "sweep.db") as database:
        database.execute(
            "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = 1"
        )
    database.close()
    outcome = scripted(tmp_path, value_of, trials=2)
    assert [trial.state for trial in outcome.trials] == ["complete", "interrupted", "complete"]
    assert outcome.trials[1].parameters == outcome.trials[2].parameters


def test_a_fault_is_raised_and_does_not_count(scripted, tmp_path):
    def faulty(config):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        scripted(tmp_path, faulty, trials=2)
    outcome = scripted(tmp_path, value_of, trials=2)
    assert [trial.state for trial in outcome.trials] == ["interrupted", "complete", "complete"]


def test_another_search_in_the_same_folder_is_refused(scripted, tmp_path, dataset):
    scripted(tmp_path, value_of, trials=1)
    stored = (tmp_path / "sweep.json").read_text()
    smaller = Interactions.from_pairs(
        np.arange(USERS), np.arange(USERS) % ITEMS, num_users=USERS, num_items=ITEMS
    )
    other = Dataset(
        "other", smaller, dataset.valid, dataset.test, *[np.arange(n) for n in (USERS, ITEMS)]
    )
    for arguments, said in [
        (
            {"vary": ["loss.margin=0.2:3.0"]},
            "with --vary=loss.margin=0.2:2.0, not --vary=loss.margin=0.2:3.0",
        ),
        (
            {"vary": [MARGIN, "model.dim=8:9"]},
            "with no --vary=model.dim, not --vary=model.dim=int:8:9",
        ),
        (
            {"config": config_of(objective="ndcg@5")},
            "with --objective=ndcg@10, not --objective=ndcg@5",
        ),
        ({"config": config_of(epochs=3)}, "with --config.training.epochs=2, not --config"),
        ({"config": config_of(seed=3)}, "with --config.seed=2021, not --config.seed=3"),
        ({"dataset": other}, "on other data"),
    ]:
        with pytest.raises(InputError) as refusal:
            scripted(tmp_path, lambda config: pytest.fail("ran"), trials=9, **arguments)
        assert f"--workdir={tmp_path} holds a sweep" in str(refusal.value)
        assert said in str(refusal.value)
    assert (tmp_path / "sweep.json").read_text() == stored
    # Written differently it is the same.
    assert len(scripted(tmp_path, value_of, ["loss.margin=0.20:2"], trials=2).trials) == 2


def test_a_second_sweep_at_the_same_time_is_refused(scripted, tmp_path):
    def values_of(config):
        with pytest.raises(InputError, match="another run is writing there"):
            scripted(tmp_path, value_of, trials=3)
        return [0.5]

    assert len(scripted(tmp_path, values_of, trials=1).trials) == 1


def test_unusable_folders_are_refused(scripted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        scripted(tmp_path / "file", value_of, trials=1)
    scripted(tmp_path / "damaged", value_of, trials=1)
    (tmp_path / "damaged" / "sweep.db").write_bytes(b"damaged " * 1000)
    with pytest.raises(InputError, match=r"sweep\.db: cannot be used"):
        scripted(tmp_path / "damaged", value_of, trials=2)
    (tmp_path / "damaged" / "sweep.json").write_text("{")
    with pytest.raises(InputError, match=r"sweep\.json: not valid JSON"):
        scripted(tmp_path / "damaged", value_of, trials=2)


def test_any_folder_name_will_do(scripted, tmp_path):
    folder = tmp_path / "50% of a?b#c @ 1:2"
    assert len(scripted(folder, value_of, trials=1).trials) == 1
    assert (folder / "sweep.db").is_file()

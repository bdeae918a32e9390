"""What a run says before training and at its end."""

import dataclasses
import pathlib

import jax
import pytest
from support.small_runs import config_of, data_for, planted

from hlr_jax import train
from hlr_jax.data.filtered import Filtered
from hlr_jax.facts import WIDTH
from hlr_jax.runs import experiment, words
from hlr_jax.training.state import Sizes, num_parameters
from hlr_jax.training.store import Progress


def told(config, workdir, data):
    """What a training run says before it begins, and before a refit."""
    texts = []
    train(config, workdir, data, False, [words.Announcer(workdir, texts.append)])
    assert max(len(line) for text in texts for line in text.splitlines()) <= WIDTH
    return texts


def lines(text):
    """The facts of a text, by name."""
    found, name = {}, ""
    for line in text.splitlines():
        if line.startswith("  ") and line[2] != " ":
            name, _, rest = line.strip().partition("  ")
            found[name] = rest.strip()
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def test_a_run_says_what_it_is_about_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = pathlib.Path("run")
    data = dataclasses.replace(planted(), filtered=Filtered(1250, low=1000, min_rating=4.0))
    config = config_of("hlr", epochs=2, patience=1, selection_metric="ndcg@5")
    (text,) = told(config, workdir, data)
    assert text.startswith("hlr on planted\n")
    assert lines(text) == {
        "data": "embedded",
        "users": "24 (0, 1, 2, ...)",
        "items": "30 (0, 1, 2, ...)",
        "interactions": "144 train, 24 valid, 48 test",
        "left out": "of 1,250 interactions read: 1,000 rated below 4",
        "model": "hlr, 6 dimensions, geometry ball, loss hinge",
        "parameters": "372: 144 of users, 180 of items, 48 of the relation",
        "training": "adam, learning rate 0.03, batches of 13 interactions, negatives per_example",
        "epochs": "2 at most, or 1 without a better one; the best by valid ndcg@5 is kept",
        "devices": "8 (cpu)",
        "writes to": "run",
    }
    (again,) = told(dataclasses.replace(config), workdir, data)
    assert lines(again)["goes on"] == "with a run that has 2 epochs already"


def test_a_refit_is_announced_and_other_ends_are_named(tmp_path):
    first, refit = told(config_of(epochs=2, refit=True), tmp_path, planted())
    assert lines(first)["epochs"] == "2; the best by valid loss is kept"
    assert "refit, on training and validation together, for " in refit
    joined = planted().joined()
    (text,) = told(config_of(epochs=1), tmp_path / "joined", joined)
    expected = "1; the last is kept, as there is no validation split"
    assert lines(text)["epochs"] == expected


@pytest.mark.parametrize("model", ["cml", "hlr", "dpcml", "cmlf"])
def test_parameters_are_counted_as_they_are_drawn(model):
    data = data_for(model)
    found = train(config_of(model, epochs=1), None, data, False)
    sizes = Sizes(data.num_users, data.num_items, data.num_features)
    counts = num_parameters(found.model, sizes)
    drawn = {"user": found.params["user"].size, "item": found.params["item"].size}
    assert {part: counts[part] for part in drawn} == drawn
    rest = sum(x.size for x in jax.tree.leaves(found.params["relation"]))
    assert counts["relation"] == rest


def results_of(config, progress):
    """Results of a run that ended with this progress, as far as words need them."""
    return {
        "train": {
            "seconds": 12.34,
            "epochs": progress.epochs,
            "best_epoch": progress.best_epoch,
            "best_valid": progress.best,
            "stopped_by": experiment._stopped_by(progress, config),
            "interactions_per_second": 123456,
        },
    }


def test_the_end_says_which_epoch_is_best_and_why_it_ended():
    config = config_of(epochs=9, patience=3)
    text = words.ended(config, results_of(config, Progress(7, 12.34, 4, {"loss": 0.25})))
    assert lines(text) == {
        "trained": "7 epochs in 12.3 s, 123,456 interactions/s",
        "best": "epoch 4, valid loss 0.25",
        "stopped": "3 epochs without a better valid loss (config.training.patience)",
    }
    config = config_of(epochs=7, selection_metric="ndcg@5", refit=True)
    results = results_of(config, Progress(7, 1.0, 6, {"ndcg@5": 0.5}))
    results["diagnosis"] = {"kind": "varies", "text": "relation: varies " + "in many words " * 8}
    text = words.ended(config, results)
    assert max(map(len, text.splitlines())) <= WIDTH
    found = lines(text)
    assert found["best"] == "epoch 6, valid ndcg@5 0.5"
    assert found["stopped"] == "all epochs were trained (config.training.epochs)"
    assert found["refit"].startswith("6 epochs on training and validation together")
    assert found["relation"] == ("varies " + "in many words " * 8).strip()
    # A warning has told of a constant.
    results["diagnosis"] = {"kind": "constant", "text": "relation: constant"}
    assert "relation" not in lines(words.ended(config, results))
    config = config_of(epochs=7)
    assert lines(words.ended(config, results_of(config, Progress(7, 1.0, 7))))["best"] == "epoch 7"

"""Training that starts from a trained model: rows matched by id, nothing else carried over."""

import dataclasses

import jax
import numpy as np
import pytest
from support.planted import planted_of
from support.small_runs import config_of

from hlr_jax import Dataset, InputError, train
from hlr_jax.config import (
    Config,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.runs.trackers import Each


def config_with(model="cml", rate=0.0, **training):
    return Config(
        model=ModelConfig(model, dim=6),
        sampling=SamplingConfig(history_length=3),
        optimizer=OptimizerConfig(learning_rate=rate or 1e-12),
        training=TrainingConfig(epochs=1, **training),
        evaluation=EvaluationConfig(cutoffs=(3,)),
    )


def data_of(users, items):
    pairs = [(u, i) for n, u in enumerate(users) for k, i in enumerate(items) if (n + k) % 3]
    return Dataset.from_frame(
        {"user": [u for u, _ in pairs], "item": [i for _, i in pairs]}, split=None
    )


OLD = data_of(["a", "b", "c", "d", "e"], ["p", "q", "r", "s", "t", "u"])
NEW = data_of(["0", "b", "d", "e", "z"], ["a", "p", "r", "s", "t", "v"])


@pytest.mark.parametrize("model", ["cml", "lrml", "hlr", "items_only"])
def test_rows_are_matched_by_id_and_others_are_drawn(model):
    config = config_with(model, 0.05)
    old = train(config, None, OLD, False)
    still = config_with(model)  # Whose steps move nothing that could be seen.
    fresh = train(still, None, NEW, False)
    found = train(still, None, NEW, False, start_from=old)
    for kind in ("user", "item"):
        ids, others = (getattr(x.dataset, f"{kind}_ids").tolist() for x in (found, old))
        for row, name in enumerate(ids):
            mine = np.asarray(found.params[kind])[row]
            known = name in others
            expected = (old if known else fresh).params[kind]
            place = others.index(name) if known else row
            np.testing.assert_allclose(mine, np.asarray(expected)[place], atol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
        found.params["relation"],
        old.params["relation"],
    )


def test_a_trained_model_is_not_changed_by_what_starts_from_it():
    old = train(config_with(rate=0.05), None, OLD, False)
    before = jax.tree.map(np.array, old.params)
    train(config_with(rate=0.05), None, NEW, False, start_from=old)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, old.params))


def test_a_start_saves_epochs():
    data = planted_of(24, 30, (6, 7, 9))
    config = dataclasses.replace(config_of("cml"), training=TrainingConfig(epochs=8))
    records: list[dict] = []
    old = train(config, None, data, False)
    again = dataclasses.replace(config, training=TrainingConfig(epochs=1))
    train(again, None, data, False, [Each(records.append)])
    train(again, None, data, False, [Each(records.append)], start_from=old)
    assert records[1]["train_loss"] < records[0]["train_loss"]


def test_what_cannot_be_carried_over_is_one_clear_error():
    old = train(config_with(rate=0.05), None, OLD, False)
    other = data_of([1, 2, 3], [4, 5, 6])
    frame = {"user": ["a", "a", "b", "b", "c"], "item": ["p", "q", "r", "s", "t"]}
    tested = Dataset.from_frame(frame, split=None)
    is_first = np.arange(3) == 0
    parts = {"train": tested.train.of_users(is_first), "test": tested.train.of_users(~is_first)}
    tested = dataclasses.replace(tested, **parts)
    smaller = dataclasses.replace(config_with(), model=ModelConfig("cml", dim=4))
    for config, data, message in (
        (config_with("lrml"), NEW, "start_from: its model is CML, not LRML"),
        (smaller, NEW, "dim is 6, not 4"),
        (config_with(), other, "start_from: no user is in both data sets; ids are like 1 and 'a'"),
        (config_with(), tested, "start_from: that run was trained on test interactions"),
    ):
        with pytest.raises(InputError, match=message):
            train(config, None, data, False, start_from=old)
    with pytest.raises(InputError, match="start: train has optimizer, start_from besides"):
        train(config_with(), None, NEW, False, start=old)

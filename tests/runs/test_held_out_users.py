"""Strong generalization: users who are never trained on are ranked by what is given of them."""

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest

from hlr_jax.config import (
    Config,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models.cml import CML
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import compatibility, experiment
from hlr_jax.training.inputs import validation_positives

USERS, ITEMS = 24, 12
OF_USERS = {"batch_of": "users", "batch_size": 4}


def interactions(items_of: dict[int, list[int]]) -> Interactions:
    pairs = [(user, item) for user, items in items_of.items() for item in items]
    users, items = np.array(pairs, int).reshape(-1, 2).T
    return Interactions.from_pairs(users, items, USERS, ITEMS)


def dataset() -> Dataset:
    """Users like the items of their parity. Users 16 to 19 validate, 20 to 23 test."""
    liked = {user: [item for item in range(ITEMS) if (user + item) % 2 == 0] for user in range(24)}
    asked = {user: [liked[user].pop(user % 6)] for user in range(16, 24)}
    parts = {
        "train": {user: liked[user] for user in range(16)},
        "valid": {user: asked[user] for user in range(16, 20)},
        "test": {user: asked[user] for user in range(20, 24)},
        "given": {user: liked[user] for user in range(16, 24)},
    }
    made = {name: interactions(items_of) for name, items_of in parts.items()}
    return Dataset("made", user_ids=np.arange(USERS), item_ids=np.arange(ITEMS), **made)


def config_of(model: str = "history_mean", **training: Any) -> Config:
    by_users = training.get("batch_of") == "users"
    fields = {"epochs": 15, "batch_size": 16, "selection_metric": "ndcg@3"} | training
    return Config(
        model=ModelConfig(model, dim=4),
        sampling=SamplingConfig("full_catalog" if by_users else "per_example", history_length=5),
        optimizer=OptimizerConfig(learning_rate=0.05),
        training=TrainingConfig(**fields),
        evaluation=EvaluationConfig(cutoffs=(3, 5), bootstrap=0),
    )


def train(config: Config, data: Dataset) -> Any:
    return experiment.train(config, None, data, show_progress=False)


@pytest.mark.parametrize("training", [{}, {"refit": True}, OF_USERS], ids=["", "refit", "users"])
def test_a_model_that_reads_histories_ranks_for_them(training):
    data = dataset()
    found = train(config_of(**training), data)
    # Of seven items that the user has not, that of its parity leads: by chance it would for 3 of 7.
    assert found.evaluate("test")["hit_rate@3"] >= 0.75
    assert found.evaluate("test")["users"] == 4
    if not training.get("refit"):
        assert found.evaluate("valid")["users"] == 4
    else:
        assert found.dataset.split_sizes == {"train": 120, "valid": 0, "test": 4, "given": 20}
    for user in range(20, 24):
        given = data.given.of(user).tolist()
        listed = found.recommend([user], k=ITEMS)["item"].to_list()
        has = sorted(given + data.test.of(user).tolist())
        assert sorted(listed + has) == list(range(ITEMS))
        assert found.history(user)["item"].to_list() == has


@pytest.mark.parametrize("training", [{}, OF_USERS], ids=["interactions", "users"])
def test_the_loss_on_validation_sees_what_is_given(training):
    data, config = dataset(), config_of(**training)
    placement = Placement.of(config.sharding, build.build_model(config), USERS, ITEMS)
    source = validation_positives(placement, data, config).source
    sizes = {"history": data.given, "seen": data.given.union(data.valid)}
    for name, expected in sizes.items():
        rows = getattr(source, name)
        offsets, items = (np.asarray(rows.offsets).ravel(), np.asarray(rows.items).ravel())
        for user in range(16, 20):
            mine = items[offsets[user] : offsets[user + 1]]
            np.testing.assert_array_equal(mine, expected.of(user))
    # Fewer given items are other histories, hence another loss.
    found = train(config, data)
    fewer = dataclasses.replace(data, given=data.given.of_users(np.arange(USERS) != 17))
    other = dataclasses.replace(found, dataset=fewer)
    assert found.validation_loss() != other.validation_loss()
    assert np.isfinite(found.validation_loss())


def test_an_item_is_not_both_given_and_to_be_predicted():
    data = dataset()
    data = dataclasses.replace(data, given=data.given.union(data.valid))
    with pytest.raises(InputError, match="a pair belongs to one split"):
        train(config_of(), data)


# --- models that cannot ---------------------------------------------------------------------------

ROWS = (
    "it has a row for each user, and those of the users that data set made holds out are never "
    "trained"
)


class WithoutRows(CML):
    """A model without a table of users."""

    user_width = 0  # type: ignore[assignment]


def check(config: Config, data: Dataset, model: Any = None) -> None:
    compatibility.check(config, model or build.build_model(config), data)


def test_rows_of_users_alone_are_refused():
    with pytest.raises(InputError) as caught:
        check(config_of("cml"), dataset())
    message = str(caught.value)
    assert message.startswith(f"config.model.name='cml': {ROWS}; use ")
    assert "the baseline ease, or another config.data.split" in message
    assert "\n" not in message


def test_rows_beside_histories_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check(config_of(), dataset())
    assert f"config.model.name='history_mean': {ROWS}; with their histories" in caplog.text


def test_an_untrained_row_selects_no_epoch_by_its_loss():
    with pytest.raises(InputError) as caught:
        check(config_of(selection_metric="loss"), dataset())
    assert str(caught.value).startswith(
        f"config.training.selection_metric='loss': config.model.name='history_mean': {ROWS}; select"
    )
    # With nothing to select on, as in a refit, it does not.
    check(config_of(selection_metric="loss"), dataset().joined())


def test_models_without_rows_and_data_without_held_out_users_are_fine(caplog):
    with caplog.at_level(logging.WARNING):
        for metric in ("loss", "ndcg@3"):
            config = config_of("cml", selection_metric=metric)
            check(config, dataset(), WithoutRows(dim=4))
            nothing = Interactions.none(USERS, ITEMS)
            check(config, dataclasses.replace(dataset(), given=nothing))
    assert not caplog.records

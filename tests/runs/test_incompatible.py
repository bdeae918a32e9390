"""Fields that do not go together with each other, the model or the data, refused in one line."""

import dataclasses
import logging
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table_runs import hand_made

from hlr_jax import config as configs
from hlr_jax.config import build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.losses import LOSSES, Loss, NegativeDistances
from hlr_jax.runs import compatibility, experiment

USERS, ITEMS = 4, 8
OF_USERS = {
    "training": {"batch_of": "users", "batch_size": 1},
    "sampling": {"negatives": "full_catalog"},
    "loss": {"name": "softmax"},
}
SHARDED = {"sharding": {"tables": "sharded"}}
FEATURES = {"features": np.ones((ITEMS, 2), np.float32)}
NOTHING = Interactions.from_pairs(np.zeros(0, int), np.zeros(0, int), USERS, ITEMS)
NEGATIVES = {"given_negatives": np.array([[1, 7], [4, 5], [4, 5], [1, 2]], np.int32)}


def data_with(**fields: Any) -> Dataset:
    """4 users and 8 items, with other fields of the data set."""
    return dataclasses.replace(hand_made().dataset, **fields)


def refusal(values: dict[str, Any], dataset: Dataset, workdir: pathlib.Path) -> str:
    """The one line that training ends in, before anything is written."""
    values = {"model": {"name": "cml"}, "evaluation": {"cutoffs": (2,)}} | values
    config = configs.from_config_dict(values)
    with pytest.raises(InputError) as caught:
        experiment.train(config, workdir / "run", dataset, show_progress=False)
    assert "\n" not in str(caught.value)
    assert not any(workdir.iterdir())
    return str(caught.value)


FAULTS = {
    "cutoff": (
        {"evaluation": {"cutoffs": (2, 9)}},
        {},
        "config.evaluation.cutoffs: a cutoff of 9 is more than the catalogue's 8 items; use at",
    ),
    "cutoff of the metric that selects": (
        {"training": {"selection_metric": "ndcg@9"}},
        {},
        "config.training.selection_metric: a cutoff of 9 is more than the catalogue's 8 items; use",
    ),
    "history longer than the catalogue": (
        {"model": {"name": "hlr"}, "sampling": {"history_length": 9}},
        {},
        "config.sampling.history_length=9: the catalogue has 8 items; use at most that",
    ),
    "a model of what came last": (
        {"model": {"name": "recent_items"}},
        {},
        "config.sampling.history='uniform': model 'recent_items' reads which items came last; use",
    ),
    "an order that is not known": (
        {"model": {"name": "hlr"}, "sampling": {"history": "recent", "history_length": 2}},
        {},
        "config.sampling.history='recent': it is not known which interactions of data set by h",
    ),
    "users who would know the future": (
        OF_USERS
        | {"model": {"name": "hlr"}}
        | {"sampling": {"negatives": "full_catalog", "history": "recent"}},
        {},
        "config.training.batch_of='users': a user's positives share its history, and with config.s",
    ),
    "neighbours in sharded tables": (
        {"model": {"name": "transcf"}} | SHARDED,
        {},
        "config.sharding.tables='sharded': model 'transcf' averages rows of all neighbours; use re",
    ),
    "features that are not read": (
        {"data": {"features": "own"}},
        FEATURES,
        "config.data.features='own': model 'cml' reads no features of items; leave them out",
    ),
    "no features to read": (
        {"model": {"name": "cmlf"}},
        {},
        "config.data.features='': model 'cmlf' reads features of items; use own for those of the",
    ),
    "features and sparse updates": (
        {"model": {"name": "cmlf"}, "optimizer": {"updates": "sparse"}},
        FEATURES,
        "config.optimizer.updates='sparse': use dense, because model 'cmlf' moves every item row",
    ),
    "features and sharded tables": (
        {"model": {"name": "cmlf"}} | SHARDED,
        FEATURES,
        "config.sharding.tables='sharded': model 'cmlf' needs all item rows on a device; use rep",
    ),
    "more targets than items": (
        OF_USERS | {"sampling": {"negatives": "shared", "num_negatives": 9}},
        {},
        "config.sampling.num_negatives=9: the catalogue has 8 items; use fewer, or config.sampling",
    ),
    "nothing to refit on": (
        {"training": {"refit": True}},
        {"valid": NOTHING},
        "config.training.refit=True: data set by hand has no validation split to add; set it to",
    ),
    "nothing to select on": (
        {"training": {"selection_metric": "ndcg@2"}},
        {"valid": NOTHING},
        "config.training.selection_metric='ndcg@2': data set by hand has no validation split to se",
    ),
    "no negatives to rank among": (
        {"evaluation": {"cutoffs": (2,), "protocol": "sampled"}},
        {},
        "config.evaluation.protocol='sampled': data set by hand gives no negatives; use full",
    ),
    "negatives and sharded tables": (
        {"evaluation": {"cutoffs": (2,), "protocol": "sampled"}} | SHARDED,
        NEGATIVES,
        "config.evaluation.protocol='sampled': needs replicated tables; use full, or config.shard",
    ),
    "too few users for cohorts": (
        {"evaluation": {"cutoffs": (2,), "cohorts": 3, "cohort_size": 2}},
        {},
        "config.evaluation.cohorts=3: 3 groups of 2 users (config.evaluation.cohort_size) need 6 "
        "users with test items, there are 4; use fewer or smaller groups",
    ),
    "fields alone": (
        {"loss": {"covariance": 0.1}, "optimizer": {"updates": "sparse"}},
        {},
        "config.optimizer.updates='sparse': use dense, because config.loss.covariance moves rows",
    ),
}


@pytest.mark.parametrize(("values", "data", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_what_does_not_fit_is_refused_before_anything_is_written(values, data, fault, tmp_path):
    message = refusal(values, data_with(**data), tmp_path)
    assert message.startswith(fault)
    assert re.search(r"[:;,] (use|set|leave) ", message), "there is no remedy"


def check(values: dict[str, Any], dataset: Dataset) -> None:
    """What training asks before it starts."""
    values = {"model": {"name": "cml"}, "evaluation": {"cutoffs": (2,)}} | values
    config = configs.from_config_dict(values)
    compatibility.check_config(config)
    compatibility.check(config, build.build_model(config), dataset)


@pytest.mark.parametrize(
    ("values", "data"),
    [
        pytest.param({"sampling": {"history_length": 9}}, {}, id="a history that is not read"),
        pytest.param({"model": {"name": "transcf"}}, {}, id="neighbours"),
        pytest.param({"model": {"name": "cmlf"}}, FEATURES, id="features"),
        pytest.param(SHARDED, {}, id="sharded tables"),
        pytest.param({"optimizer": {"updates": "sparse"}}, {}, id="sparse updates"),
        pytest.param(OF_USERS, {}, id="batches of users"),
        pytest.param(OF_USERS | {"model": {"name": "transcf"}}, {}, id="users with a penalty"),
        pytest.param({}, {"valid": NOTHING}, id="no validation split"),
        pytest.param({"training": {"refit": True}}, {}, id="refit"),
        pytest.param({"training": {"selection_metric": "ndcg@8"}}, {}, id="a metric that selects"),
        pytest.param({"evaluation": {"cutoffs": (8,), "protocol": "sampled"}}, NEGATIVES, id="neg"),
        pytest.param(
            {"evaluation": {"cutoffs": (2,), "cohorts": 2, "cohort_size": 2}}, {}, id="cohorts"
        ),
    ],
)
def test_each_alone_fits(values, data):
    check(values, data_with(**data))


def test_large_batches_of_users_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check(OF_USERS, data_with())
        assert not caplog.records
        check(OF_USERS | {"training": {"batch_of": "users", "batch_size": 2}}, data_with())
    assert "config.training.batch_size=2: with config.training.batch_of='users' a" in caplog.text


# --- losses of others ----------------------------------------------------------------------------


@pytest.fixture
def _losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register losses with a fault each, as another package would."""
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))

    @LOSSES.register("mean_of_all")
    class MeanOfAll(Loss):
        def __call__(self, positive: jax.Array, negatives: NegativeDistances) -> jax.Array:
            return jnp.mean(positive)

    @LOSSES.register("unmasked")
    class Unmasked(Loss):
        def __call__(self, positive: jax.Array, negatives: NegativeDistances) -> jax.Array:
            counted = jnp.where(negatives.mask, negatives.values, 0)
            number = jnp.sum(negatives.mask.astype(float), axis=-1)
            return positive - jnp.sum(counted, axis=-1) / number

    @LOSSES.register("of_terms")
    class OfTerms(MeanOfAll):
        def __call__(self, positive: jax.Array, negatives: NegativeDistances) -> jax.Array:
            return positive

        def num_terms(self, positive: jax.Array, negatives: NegativeDistances) -> jax.Array:
            return jnp.ones(())


@pytest.mark.usefixtures("_losses")
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mean_of_all", "returned a loss of shape (), not (3,); return one number for each positi"),
        ("unmasked", "returned a loss that is not finite for squared distances from 0 to 4, or wh"),
        ("of_terms", "returned num_terms of shape (), not (3,); return one number for each positi"),
    ],
)
def test_a_loss_without_a_number_for_each_positive_is_refused(name, fault, tmp_path):
    message = refusal({"loss": {"name": name}}, data_with(), tmp_path)
    assert message.startswith(f"config.loss.name={name!r}: test_incompatible.")
    assert fault in message


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (
            OF_USERS | {"sampling": {"negatives": "shared", "num_negatives": 3}},
            "config.sampling.num_negatives=3: with config.training.batch_of='users' a step counts",
        ),
        (
            {"training": {"matmul_precision": "bfloat16"}},
            "config.training.matmul_precision='bfloat16' changes nothing on a CPU",
        ),
    ],
)
def test_what_brings_nothing_is_warned_of(values, warning, caplog):
    with caplog.at_level(logging.WARNING):
        check(values, data_with())
    assert warning in caplog.text

"""What cannot be diagnosed is refused in a line."""

import dataclasses

import numpy as np
import pytest
from support.untrained import untrained

import hlr_jax
from hlr_jax.config import ShardingConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.runs.diagnosis import diagnose
from hlr_jax.runs.recommender import Recommender


@pytest.mark.parametrize("model", ["cml", "cmlf"])
def test_a_model_without_a_relation_is_refused(model):
    with pytest.raises(InputError, match=rf"config.model.name='{model}': has no relation"):
        hlr_jax.diagnose(untrained(model))


def test_sharded_tables_are_refused():
    rec = untrained("lrml")
    config = dataclasses.replace(rec.config, sharding=ShardingConfig(tables="sharded"))
    with pytest.raises(InputError, match=r"config.sharding.tables='sharded'"):
        diagnose(Recommender.of(config, rec.dataset, rec.model, rec.params))


def test_users_without_two_unseen_items_are_refused():
    rec = untrained("lrml")
    users, items = rec.dataset.num_users, rec.dataset.num_items
    every = np.repeat(np.arange(users), items - 1), np.tile(np.arange(items - 1), users)
    train = Interactions.from_pairs(*every, users, items)
    full = dataclasses.replace(rec.dataset, train=train)
    with pytest.raises(InputError, match="users have all but one of the items that were drawn"):
        diagnose(dataclasses.replace(rec, dataset=full))

"""A sampler of another package: the positives of a step are each other's negatives."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.interactions import ITEMS_OF, TRAIN, draw_batch, training_source
from support.placed_runs import assert_close, config_of, placed, recommender, start, trained, used

from hlr_jax.config import LossConfig, SamplingConfig
from hlr_jax.errors import InputError
from hlr_jax.registry import register
from hlr_jax.runs import compatibility
from hlr_jax.sampling.batches import Drawing
from hlr_jax.sampling.samplers import SAMPLERS, Examples, Sampler
from hlr_jax.sampling.sources import SamplingSource
from hlr_jax.types import SharedNegatives


class InBatch(Sampler):
    """The positives of all devices are the negatives of each, unless its user has seen them."""

    is_shared: ClassVar[bool] = True

    def draw(self, examples: Examples, source: SamplingSource) -> SharedNegatives:
        # Padding is past the end of the catalogue, so that it never counts.
        items = jnp.where(examples.valid, examples.positives, source.num_items)
        return self.share(examples.of_all_devices(items), examples.users, source)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by its name for one test."""
    monkeypatch.setattr(SAMPLERS, "_classes", dict(SAMPLERS._classes))
    register("in_batch")(InBatch)


def test_negatives_are_the_other_positives_that_a_user_has_not_seen():
    rows = jnp.asarray([0, 5, 12, 3, 14, 0, -1], jnp.int32)
    batch = draw_batch(Drawing(InBatch()), training_source(TRAIN), rows, jax.random.key(0))
    items = batch.negatives.items.tolist()
    assert items == [*batch.positives[:6].tolist(), 10]
    for row, user in enumerate(batch.users[:6].tolist()):
        expected = oracles.unseen_negatives(items[:6], set(ITEMS_OF[user]))
        np.testing.assert_array_equal(batch.negatives.mask[row], [*expected, False])


@pytest.mark.parametrize(
    ("update", "mode", "shards"),
    [("dense", "replicated", 1), ("sparse", "users", 1), ("dense", "both", 2)],
)
def test_eight_devices_train_as_one_does(update, mode, shards):
    """Every device has the positives of all as negatives."""
    config = config_of(
        "cml",
        update,
        sampling=SamplingConfig(negatives="in_batch"),
        loss=LossConfig(name="softmax"),
    )
    compatibility.check_config(config)
    assert isinstance(start(config, placed("replicated", 1))[1].drawing.sampler, InBatch)
    found = []
    for placement in (placed("replicated", 1), placed(mode, 8, shards)):
        state, losses = trained(config, placement, 20)
        found.append((used(state, placement), losses))
        assert recommender(config, placement, state).validation_loss() > 0
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
    assert_close(found[1][0], found[0][0])
    assert found[0][1][-1] < found[0][1][0]


def test_without_targets_it_is_refused_for_batches_of_users():
    """With those samplers that have some."""
    config = config_of(sampling=SamplingConfig(negatives="in_batch"))
    by_user = dataclasses.replace(config.training, batch_of="users")
    with pytest.raises(InputError) as caught:
        compatibility.check_config(dataclasses.replace(config, training=by_user))
    assert str(caught.value).startswith("config.training.batch_of='users': ")
    assert "set config.sampling.negatives to one of full_catalog, shared" in str(caught.value)

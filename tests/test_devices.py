"""What several devices do together is what one does alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlr_jax import devices, models, optimizers, sampling, training
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.interactions import Interactions
from hlr_jax.training import TrainState

USERS, ITEMS, BATCH = 9, 30, 7
build_optimizer = functools.cache(optimizers.build)


@functools.cache
def interactions() -> Interactions:
    """Users with 1 to 9 of 30 items: 45 pairs, six full batches and one of three rows."""
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(USERS) for item in rng.permutation(ITEMS)[: user + 1]]
    return Interactions.from_pairs(*np.array(pairs).T, USERS, ITEMS)


def config_of(name: str, rows: str = "all", loss: dict[str, Any] | None = None) -> Config:
    return Config(
        model=ModelConfig(name=name, dim=6, options={} if name == "cml" else {"slots": 4}),
        sampling=SamplingConfig(negatives=2, history_length=4),
        loss=LossConfig(**({"margin": 0.5} | (loss or {}))),
        optimizer=OptimizerConfig(learning_rate=0.03, rows=rows),
        training=TrainingConfig(batch_size=BATCH),
    )


def trained(config: Config, parts: int) -> TrainState:
    """The state after an epoch of seven steps on so many devices."""
    model = models.build(config.model.name, config.model.dim, config.model.options)
    optimizer = build_optimizer(config.optimizer, config.training, 7)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    source = sampling.training_source(interactions())
    state, source = devices.replicate((TrainState.of(params, optimizer), source), parts)
    order = sampling.epoch_order(jax.random.key(1), len(source.users), BATCH)
    return training.train_steps(
        state,
        source,
        devices.split(order, parts),
        jax.random.key(2),
        0,
        7,
        model,
        optimizer,
        config,
    )


def assert_close(actual: Any, expected: Any, bound: float = 1e-5) -> None:
    """Leaf by leaf, the largest error is below `bound` times the largest expected number."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        assert np.abs(np.asarray(x) - np.asarray(y)).max() <= bound * np.abs(y).max()


@pytest.mark.parametrize(
    ("name", "rows", "loss", "parts"),
    [
        ("cml", "all", {"rank_weight": True, "covariance": 0.1}, 2),
        ("cml", "touched", {"rank_weight": True}, 8),
        ("lrml", "all", {}, 3),
        ("lrml", "touched", {"reduction": "mean"}, 2),
        ("hlr", "all", {"reduction": "mean"}, 8),
        ("hlr", "touched", {}, 3),
        ("hlrpp", "all", {"copy_relation": True}, 2),
        ("hlrpp", "touched", {}, 8),
    ],
)
def test_n_devices_train_as_one_does(name, rows, loss, parts):
    """2 and 3 devices get unequal parts of 7 rows; of 8 devices one gets none."""
    config = config_of(name, rows, loss)
    one, several = trained(config, 1), trained(config, parts)
    assert (
        float(one.triplets) == float(several.triplets) == 45 * (1 if config.loss.rank_weight else 2)
    )
    assert int(one.step) == int(several.step) == 7
    assert_close(several, one)


@pytest.mark.parametrize("name", ["cml", "hlr"])
def test_the_mean_loss_does_not_depend_on_the_number_of_devices(name, monkeypatch):
    config = config_of(name)
    model = models.build(config.model.name, config.model.dim, config.model.options)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    source = sampling.training_source(interactions())
    found = []
    for count in (1, 3, 8):
        monkeypatch.setattr(devices, "count", lambda count=count: count)
        found.append(training.mean_loss(params, source, jax.random.key(3), model, config))
    assert isinstance(found[0], float)
    assert found[0] > 0.1
    np.testing.assert_allclose(found[1:], found[0], rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_batches_are_cut_in_order_and_filled_up_with_padding(parts):
    order = np.arange(21, dtype=np.int32).reshape(3, 7)
    cut = devices.split(order, parts)
    assert cut.shape == (parts, 3, -(-7 // parts))
    assert [shard.device for shard in cut.addressable_shards] == jax.local_devices()[:parts]
    for step in range(3):
        whole = np.asarray(cut[:, step]).ravel()
        np.testing.assert_array_equal(whole[:7], order[step])
        assert (whole[7:] == -1).all()


def test_replicas_are_on_the_first_devices_and_one_is_taken_back():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.asarray(4)]}
    replicas = devices.replicate(tree, 3)
    assert replicas["a"].sharding.device_set == set(jax.local_devices()[:3])
    assert replicas["a"].is_fully_replicated
    one = devices.on_one(replicas)
    assert one["a"].devices() == {jax.local_devices()[0]}
    jax.tree.map(np.testing.assert_array_equal, one, tree)
    for shape, x in zip(*map(jax.tree.leaves, (devices.shapes_on_one(replicas), one)), strict=True):
        assert (shape.shape, shape.dtype, shape.sharding) == (x.shape, x.dtype, x.sharding)


@pytest.mark.parametrize(
    ("backend", "name", "limit", "expected"),
    [
        pytest.param("cpu", "hlr", 0, 5, id="pays"),
        pytest.param("cpu", "hlr", -1, 1, id="large tables"),
        pytest.param("cpu", "cml", 0, 1, id="no histories"),
        pytest.param("gpu", "hlr", -1, 5, id="hlr on gpus"),
        pytest.param("gpu", "cml", 0, 5, id="cml on gpus"),
    ],
)
def test_a_cpu_trains_on_all_devices_only_where_that_pays(
    backend, name, limit, expected, monkeypatch
):
    """`limit`: by how many bytes the tables may be larger."""
    model = models.build(name, 4, {} if name == "cml" else {"slots": 2})
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    monkeypatch.setattr(devices, "MOST_TABLE_BYTES", 4 * 4 * (USERS + ITEMS) + limit)
    monkeypatch.setattr(devices, "count", lambda: 5)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert devices.count_for(model, params) == expected

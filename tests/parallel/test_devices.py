"""What several devices do together is what one does alone."""

import functools
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from hlr_jax import models
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation import ranking
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling import epoch_order as batching
from hlr_jax.sampling import sources
from hlr_jax.training import optimizers
from hlr_jax.training import step as training
from hlr_jax.training.step import TrainState

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
    placement = Placement.replicated(parts, USERS, ITEMS)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    state = placement.state(placement.params(params), optimizer)
    train = interactions()
    positives = placement.positives(train.offsets, lambda users: sources.training_source(train))
    order, key = placement.order(jax.random.key(1), positives, BATCH), jax.random.key(2)
    return placement.advance(state, positives.source, order, key, 0, 7, model, optimizer, config)


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
def test_the_mean_loss_does_not_depend_on_the_number_of_devices(name):
    config = config_of(name)
    model = models.build(config.model.name, config.model.dim, config.model.options)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    train, found = interactions(), []
    for count in (1, 3, 8):
        placement = Placement.replicated(count, USERS, ITEMS)
        positives = placement.positives(train.offsets, lambda users: sources.training_source(train))
        placed, key = placement.params(params), jax.random.key(3)
        found.append(placement.mean_loss(placed, positives, key, model, config))
    assert isinstance(found[0], float)
    assert found[0] > 0.1
    np.testing.assert_allclose(found[1:], found[0], rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_batches_are_cut_in_order_and_filled_up_with_padding(parts):
    order = np.arange(21, dtype=np.int32).reshape(3, 7)
    cut = devices.split(order, parts)
    assert cut.shape == (parts, 3, -(-7 // parts))
    for step in range(3):
        whole = np.asarray(cut[:, step]).ravel()
        np.testing.assert_array_equal(whole[:7], order[step])
        assert (whole[7:] == -1).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_each_device_gets_its_part_of_every_batch(parts):
    placement, train = Placement.replicated(parts, USERS, ITEMS), interactions()
    positives = placement.positives(train.offsets, lambda users: sources.training_source(train))
    assert len(positives) == len(train)
    order = placement.order(jax.random.key(1), positives, BATCH)
    assert [shard.device for shard in order.addressable_shards] == jax.local_devices()[:parts]
    assert {shard.data.shape for shard in order.addressable_shards} == {(1, *order.shape[1:])}
    expected = batching.epoch_order(jax.random.key(1), len(train), BATCH)
    np.testing.assert_array_equal(order, devices.split(expected, parts))


def test_replicas_are_on_the_first_devices_and_one_is_taken_back():
    model = models.build("hlr", 6, {"slots": 4})
    optimizer = build_optimizer(OptimizerConfig(), TrainingConfig(), 7)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    expected = jax.tree.map(np.array, TrainState.of(params, optimizer))
    placement = Placement.replicated(3, USERS, ITEMS)
    placed = placement.params(params)
    one = placement.one_copy(placed)
    for x, single in zip(*map(jax.tree.leaves, (placed, one)), strict=True):
        assert x.sharding.device_set == set(jax.local_devices()[:3])
        assert x.is_fully_replicated
        assert single.devices() == {jax.local_devices()[0]}
    jax.tree.map(np.testing.assert_array_equal, one, expected.params)

    like = placement.shapes(placed, optimizer)
    state = placement.state(placed, optimizer)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert jax.tree.structure(like) == jax.tree.structure(state)
    for shape, x in zip(*map(jax.tree.leaves, (like, state)), strict=True):
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
    monkeypatch.setattr(devices, "MOST_TABLE_BYTES", 1000 + limit)
    monkeypatch.setattr(devices, "count", lambda: 5)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert devices.count_for(model, 1000) == expected


@pytest.mark.parametrize("parts", [3, 8])
def test_n_devices_rank_as_one_does(parts, monkeypatch):
    model = models.build("hlr", 6, {"slots": 4})
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    users = np.arange(70) % USERS

    def top_k(count: int, batch_size: int) -> Any:
        monkeypatch.setattr(devices, "count", lambda: count)
        known, key = interactions(), jax.random.key(1)
        return ranking.top_k(model, params, known, known, users, 5, 4, key, batch_size=batch_size)

    ids, scores = top_k(1, 8192)
    for batch_size in (8192, 65, 10):
        found_ids, found_scores = top_k(parts, batch_size)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-5)


def in_a_new_process(code: str, **environment: str) -> str:
    """What a program prints that starts JAX anew."""
    command = [sys.executable, "-c", f"import jax\nfrom hlr_jax import devices\n{code}"]
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("XLA", "JAX"))
    }
    done = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cores_are_devices_unless_a_number_is_set():
    count = "devices.use_all_cores()\nprint(jax.device_count())"
    cores = len(os.sched_getaffinity(0))
    assert in_a_new_process(count) == str(min(cores, devices.MOST_CORES))
    assert in_a_new_process(count, JAX_NUM_CPU_DEVICES="3") == "3"
    flag = "--xla_force_host_platform_device_count=5"
    assert in_a_new_process(count, XLA_FLAGS=flag) == "5"
    assert in_a_new_process(f"jax.devices()\n{count}") == "1"


def test_compiled_programs_are_kept_in_the_cache_folder(tmp_path):
    code = "devices.keep_compiled_programs()\njax.jit(lambda x: x + 1)(1.0)\n"
    code += "print(jax.config.jax_compilation_cache_dir)"
    settings = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    folder = in_a_new_process(code, HLR_JAX_CACHE=str(tmp_path), **settings)
    assert os.path.dirname(folder) == str(tmp_path)
    assert os.listdir(folder)
    assert os.stat(folder).st_mode & 0o077 == 0
    own = str(tmp_path / "own")
    assert in_a_new_process(code, JAX_COMPILATION_CACHE_DIR=own, **settings) == own
    (tmp_path / "file").touch()
    assert in_a_new_process(code, HLR_JAX_CACHE=str(tmp_path / "file")) == "None"

"""The devices of one process: who gets which part of a batch, and how many are used."""

import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from support.placed_runs import BATCH, config_of, data, placed, recommender, start
from support.small_runs import epoch_order

from hlr_jax.config import ModelConfig, build
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.parallel import devices
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.epoch_order import split
from hlr_jax.sampling.histories import HistoryDraw, UniformChoice
from hlr_jax.training.inputs import shuffled_rows, training_positives
from hlr_jax.training.state import TrainState, new_state, state_shapes


def in_one_part(count: int) -> Placement:
    """On so many devices, with the batches of a single part of the users."""
    return Placement.replicated(count, data().num_users, data().num_items)


def test_the_mean_loss_does_not_depend_on_the_number_of_devices():
    for name in ("cml", "hlr"):
        config, found = config_of(name), []
        for placement in (in_one_part(1), in_one_part(3), placed("replicated", 8)):
            state, _ = start(config, placement)
            found.append(recommender(config, placement, state).validation_loss())
        assert isinstance(found[0], float)
        assert found[0] > 0.1
        np.testing.assert_allclose(found[1:], found[0], rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_each_device_gets_its_part_of_every_batch(parts):
    placement, train = in_one_part(parts), data().train
    positives = training_positives(placement, data(), config_of())
    assert len(positives) == len(train)
    rows = shuffled_rows(positives, BATCH, jax.random.key(1))
    shards = rows.order.addressable_shards
    assert [shard.device for shard in shards] == jax.local_devices()[:parts]
    assert {shard.data.shape for shard in shards} == {(1, *rows.order.shape[1:])}
    order_key, draw_key = jax.random.split(jax.random.key(1))
    expected = epoch_order(order_key, len(train), BATCH)
    np.testing.assert_array_equal(rows.order, split(expected, parts))
    assert rows.key == draw_key


def test_replicas_are_on_the_first_devices_and_one_is_taken_back():
    placement = in_one_part(3)
    state, recipe = start(config_of("hlr"), in_one_part(1))
    expected = jax.tree.map(np.array, state)
    placed = placement.params(expected.params)
    one = placement.one_copy(placed)
    for x, single in zip(*map(jax.tree.leaves, (placed, one)), strict=True):
        assert x.sharding.device_set == set(jax.local_devices()[:3])
        assert x.is_fully_replicated
        assert single.devices() == {jax.local_devices()[0]}
    jax.tree.map(np.testing.assert_array_equal, one, expected.params)

    like = state_shapes(placed, recipe.optimizer, placement)
    state = new_state(placed, recipe.optimizer, like)
    assert isinstance(state, TrainState)
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
    model = build.build_model(config_of(model=ModelConfig(name, dim=4)))
    monkeypatch.setattr(devices, "MOST_TABLE_BYTES", 1000 + limit)
    monkeypatch.setattr(devices, "count", lambda: 5)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert devices.count_for(model, 1000) == expected


@pytest.mark.parametrize("parts", [3, 8])
def test_n_devices_rank_as_one_does(parts, monkeypatch):
    placement, known = in_one_part(1), data().train
    state, recipe = start(config_of("hlr"), placement)
    model = recipe.objective.model
    users = np.arange(70) % data().num_users
    draw = HistoryDraw(UniformChoice(), jax.random.key(1), 4)

    def top_k(count: int, batch_size: int) -> Any:
        monkeypatch.setattr(devices, "count", lambda: count)
        ranker = Ranker(model, state.params, placement, draw, batch_size)
        return ranker.top_k(users, 5, known, known)

    ids, scores = top_k(1, 8192)
    for batch_size in (8192, 65, 10):
        found_ids, found_scores = top_k(parts, batch_size)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-5)


# --- what processes set up -----------------------------------------------------------------------


def in_a_new_process(code: str, **environment: str) -> str:
    """What a program prints in a process of its own, where JAX starts fresh."""
    command = [sys.executable, "-c", f"import jax\nfrom hlr_jax.parallel import devices\n{code}"]
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

"""Checkpoints and other files of a run: complete or absent, and refused where they do not fit."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlr_jax import files
from hlr_jax.config import Config
from hlr_jax.errors import InputError
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training.optimizers import NamedOptimizer
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import Progress
from hlr_jax.types import Params

ADAM = NamedOptimizer.of(Config(), 1)
PROGRESS = Progress(epochs=2, seconds=1.5, best_epoch=1, best={"loss": 0.25, "ndcg@10": 0.5})


def params_of(seed: int, num_users: int = 5, dim: int = 3) -> Params:
    keys = jax.random.split(jax.random.key(seed), 4)
    return {
        "user": jax.random.normal(keys[0], (num_users, dim)),
        "item": jax.random.normal(keys[1], (7, dim)),
        "relation": {
            "key": jax.random.normal(keys[2], (dim, 4)),
            "memory": jax.random.normal(keys[3], (4, dim)),
        },
    }


def state_of(params: Params, step: int = 0) -> TrainState:
    state = TrainState.of(params, ADAM)
    # Nothing at its initial value.
    moved = jax.tree.map(lambda x: x + jnp.asarray(0.5 + step, x.dtype), state.opt_state)
    return state.replace(
        step=jnp.asarray(step, jnp.int32),
        opt_state=moved,
        loss_sum=jnp.asarray(1.25),
        loss_terms=jnp.asarray(77.0),
    )


def replicate(tree: Any, count: int) -> Any:
    mesh = Mesh(jax.local_devices()[:count], ("devices",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def assert_same(one: object, two: object) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def save_both(store: Checkpoints, state: TrainState, progress: Progress = PROGRESS) -> None:
    """As a run does after an epoch that is better than all before."""
    store.save_best(state, progress)
    store.save(state, progress)


def test_a_state_comes_back_as_it_was(tmp_path):
    store, state = Checkpoints(tmp_path / "checkpoints"), state_of(params_of(0), step=12)
    store.save(state, PROGRESS)
    like = TrainState.of(params_of(1), ADAM)
    for _ in range(2):
        restored, progress = store.restore(like)
        assert isinstance(restored, TrainState)
        assert_same(restored, state)
        assert progress == PROGRESS


def test_a_table_of_users_without_rows_comes_back_as_it_was(tmp_path):
    """Orbax stores no array without a number: it is left out, and made again."""
    params = params_of(0)
    without = params | {"user": params["user"][:, :0]}
    store, state = Checkpoints(tmp_path / "checkpoints"), state_of(without, step=12)
    save_both(store, state)
    like = TrainState.of(params_of(1) | {"user": without["user"]}, ADAM)
    assert_same(store.restore(like)[0], state)
    found = store.restore_best(jax.eval_shape(lambda: like.params))
    assert_same(found, without)
    assert found["user"].shape == (5, 0)
    with pytest.raises(InputError, match=r"\['user'\] is None and not \(5, 3\)"):
        store.restore_best(params)


def test_shapes_alone_suffice_to_restore(tmp_path):
    store, params = Checkpoints(tmp_path), params_of(0)
    save_both(store, state_of(params, 3))
    assert_same(store.restore_best(jax.eval_shape(lambda: params)), params)


def test_the_latest_state_replaces_the_one_before(tmp_path):
    store = Checkpoints(tmp_path)
    for step in (4, 9):
        store.save(state_of(params_of(step), step), PROGRESS._replace(epochs=step))
    restored, progress = store.restore(state_of(params_of(0)))
    assert int(restored.step) == progress.epochs == 9


def test_the_same_step_can_be_saved_again(tmp_path):
    store = Checkpoints(tmp_path)
    for seed in (1, 2):
        save_both(store, state_of(params_of(seed), 4))
    assert_same(store.restore(state_of(params_of(0)))[0].params, params_of(2))
    assert_same(store.restore_best(params_of(0)), params_of(2))


def test_an_earlier_step_can_be_saved_after_a_later_one(tmp_path):
    store = Checkpoints(tmp_path)
    for step in (9, 4):
        save_both(store, state_of(params_of(step), step))
    assert_same(store.restore_best(params_of(0)), params_of(4))


def test_the_best_parameters_are_kept_apart(tmp_path):
    store = Checkpoints(tmp_path)
    store.save_best(state_of(params_of(1), 4), PROGRESS)
    store.save(state_of(params_of(2), 8), PROGRESS)
    assert_same(store.restore_best(params_of(0)), params_of(1))
    assert_same(store.restore(state_of(params_of(0)))[0].params, params_of(2))


def test_saving_leaves_the_state_alone(tmp_path):
    state = state_of(params_of(0), 4)
    before = jax.tree.map(np.array, state.params)
    Checkpoints(tmp_path).save(state, PROGRESS)
    assert_same(state.params, before)


def test_without_a_checkpoint(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.restore(state_of(params_of(0))) is None
    with pytest.raises(InputError, match="names the best epoch; nothing else is left") as caught:
        store.restore_best(params_of(0))
    assert str(tmp_path / "checkpoints" / "latest") in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (1, 8), (3, 8)])
def test_a_state_goes_from_some_devices_to_others(tmp_path, saved_on, restored_on):
    store, state = Checkpoints(tmp_path), state_of(params_of(0), step=12)
    save_both(store, replicate(state, saved_on))
    like = replicate(state_of(params_of(1)), restored_on)
    restored, progress = store.restore(like)
    assert_same(restored, state)
    assert progress == PROGRESS
    assert_same(store.restore_best(like.params), state.params)
    for x in jax.tree.leaves(restored):
        assert x.devices() == set(jax.local_devices()[:restored_on])


ON_ONE_DEVICE = """
import pathlib, sys
import jax, jax.numpy as jnp
from hlr_jax.config import Config
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training.optimizers import NamedOptimizer
from hlr_jax.training.state import TrainState

assert jax.device_count() == 1
relation = {"key": jnp.zeros((3, 4)), "memory": jnp.zeros((4, 3))}
params = {"user": jnp.zeros((5, 3)), "item": jnp.zeros((7, 3)), "relation": relation}
folder = pathlib.Path(sys.argv[1])
like = TrainState.of(params, NamedOptimizer.of(Config(), 1))
state, progress = Checkpoints(folder / "of 8").restore(like)
Checkpoints(folder / "of 1").save(state, progress)
"""


def test_a_state_goes_to_a_process_with_one_device_and_back(tmp_path):
    state = state_of(params_of(0), step=12)
    Checkpoints(tmp_path / "of 8").save(replicate(state, 8), PROGRESS)
    flags = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ON_ONE_DEVICE, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    like = replicate(state_of(params_of(1)), 8)
    restored, progress = Checkpoints(tmp_path / "of 1").restore(like)
    assert_same(restored, state)
    assert progress == PROGRESS


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (params_of(0, num_users=6), r"\['user'\] is \(5, 3\) and not \(6, 3\)"),
        (
            params_of(0) | {"user": jnp.zeros((5, 0))},
            r"\['user'\] is \(5, 3\) and not None",
        ),
        (params_of(0, dim=4), r"\['item'\] is \(7, 3\) and not \(7, 4\)"),
        (params_of(0) | {"relation": {}}, r"\['relation'\]\['key'\] is \(3, 4\) and not None"),
        (
            params_of(0) | {"relation": {**params_of(0)["relation"], "user_key": jnp.ones((3, 4))}},
            r"\['relation'\]\['user_key'\] is None and not \(3, 4\)",
        ),
    ],
    ids=["users", "users without rows", "embedding size", "another model", "another option"],
)
def test_other_shapes_are_refused(tmp_path, other, fault):
    store = Checkpoints(tmp_path)
    save_both(store, state_of(params_of(0), 4))
    for restore, folder in (
        (lambda: store.restore(state_of(other)), "latest"),
        (lambda: store.restore_best(other), "best"),
    ):
        with pytest.raises(InputError, match=fault) as caught:
            restore()
        assert str(tmp_path / folder) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wanted", [5, 6, 9])
def test_unused_rows_are_added_or_left_out(tmp_path, wanted):
    rows, whole = {"user": 5, "item": 7}, state_of(params_of(0, num_users=8), 4)
    store = Checkpoints(tmp_path, rows)
    save_both(store, whole)
    like = state_of(params_of(1, num_users=wanted))
    restored, progress = store.restore(like)
    assert progress == PROGRESS
    assert int(restored.step) == 4
    for tree in (restored, restored.replace(params=store.restore_best(like.params))):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, like)
        used = jax.tree.map(lambda x: x[:5], (tree.params["user"], tree.opt_state[0].mu["user"]))
        before = whole.params["user"], whole.opt_state[0].mu["user"]
        assert_same(used, jax.tree.map(lambda x: x[:5], before))
        for name in ("item", "relation"):
            assert_same(tree.params[name], whole.params[name])


@pytest.mark.parametrize("rows", [None, {"user": 6, "item": 7}, {"user": 5, "item": 6}])
def test_another_number_of_used_rows_is_refused(tmp_path, rows):
    state = state_of(params_of(0, num_users=8))
    Checkpoints(tmp_path, {"user": 5, "item": 7}).save(state, PROGRESS)
    fault = (
        r"\['item'\] is \(7, 3\) and not" if rows and rows["item"] == 6 else r"is \(5, 3\) and not"
    )
    with pytest.raises(InputError, match=fault):
        Checkpoints(tmp_path, rows).restore(state)


def unfinished(folder: pathlib.Path, step: int) -> pathlib.Path:
    """What a save that was cut off leaves behind."""
    rest = folder / f"{step}.orbax-checkpoint-tmp"
    (rest / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (rest / "state.orbax-checkpoint-tmp" / "manifest.ocdbt").write_bytes(b"half")
    return rest


def test_a_save_that_was_cut_off_does_no_harm(tmp_path):
    store, state = Checkpoints(tmp_path), state_of(params_of(0), 4)
    store.save(state, PROGRESS)
    unfinished(tmp_path / "latest", 8)
    restored, _ = store.restore(state_of(params_of(1)))
    assert_same(restored, state)
    later = state_of(params_of(2), 8)
    store.save(later, PROGRESS)
    assert_same(store.restore(state_of(params_of(1)))[0], later)


def test_a_first_save_that_was_cut_off_is_no_checkpoint(tmp_path):
    store = Checkpoints(tmp_path)
    unfinished(tmp_path / "latest", 1)
    unfinished(tmp_path / "best", 1)
    assert store.restore(state_of(params_of(1))) is None
    with pytest.raises(InputError, match="no checkpoint names the best epoch"):
        store.restore_best(params_of(0))


# --- small files ---------------------------------------------------------------------------------


def test_json_is_written_completely(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(path, {"a": [1, 2.5], "b": "Café"})
    files.write_json(path, {"a": None})
    assert files.read_json_object(path) == {"a": None}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    files.write_json(path, {"old": 1})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"new": 2})
    assert files.read_json_object(path) == {"old": 1}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_damaged_json_names_the_file(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not valid JSON") as caught:
        files.read_json_object(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_lines_without_an_unfinished_last_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert files.read_json_lines(path) == []
    files.write_json_lines(path, [{"epoch": 1}, {"epoch": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"epoch": 1},
        {"epoch": 2},
    ]
    with path.open("a") as file:
        file.write('{"epoch": ')
    assert files.read_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]

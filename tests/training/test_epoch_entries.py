"""Two entries to an epoch's steps, `pmap` and `jit` of `shard_map`; and optimizers from outside."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from support.small_runs import STEPS, Run, assert_same, config_of, data_for, differ, train

from hlr_jax.config import OptimizerConfig
from hlr_jax.parallel.layout import REPLICATED
from hlr_jax.runs import experiment
from hlr_jax.training.epoch import train_steps, train_steps_sharded


@pytest.mark.parametrize(
    ("model", "devices"), [("cml", 1), ("cml", 2), ("cml", 8), ("hlr", 1), ("hlr", 8)]
)
def test_pmap_takes_the_steps_of_shard_map(model, devices):
    """To the last digits: in every array of the state, on the same devices."""
    run = Run.of(config_of(model))
    placement = run.on(devices)
    recipe = jax.tree.map(placement.put, run.recipe)
    rows, span = run.rows(devices), (0, STEPS)
    by_pmap = train_steps(run.state(devices), rows, span, recipe)
    by_shard_map = train_steps_sharded()(
        run.state(devices), rows, span, recipe, REPLICATED, placement.mesh
    )
    assert int(by_pmap.step) == STEPS
    assert jax.tree.structure(by_pmap) == jax.tree.structure(by_shard_map)
    for x, y in zip(*map(jax.tree.leaves, (by_pmap, by_shard_map)), strict=True):
        assert x.sharding.device_set == y.sharding.device_set
        assert len(x.sharding.device_set) == devices
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-7)


# --- optimizers from outside ---------------------------------------------------------------------


CLIPPED_ADAM = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.03))


@pytest.mark.parametrize(
    ("named", "given", "frozen"),
    [
        pytest.param({"name": "sgd"}, optax.sgd(0.03), "", id="sgd"),
        pytest.param({"name": "sgd"}, optax.sgd(0.03), "item", id="sgd, items frozen"),
        pytest.param({"gradient_clip": 0.5}, CLIPPED_ADAM, "user", id="adam, users frozen"),
    ],
)
def test_a_given_transformation_trains_as_the_named_one(named, given, frozen):
    config = dataclasses.replace(
        config_of(),
        optimizer=OptimizerConfig(learning_rate=0.03, **named),
        training=dataclasses.replace(
            config_of().training, freeze_user=frozen == "user", freeze_item=frozen == "item"
        ),
    )
    expected = train(config)
    # What the configuration names does not count then.
    other = dataclasses.replace(config, optimizer=OptimizerConfig(name="adagrad"))
    data = data_for("cml")
    found = experiment.train(other, None, data, show_progress=False, optimizer=given).params
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    started = Run.of(config).params()
    for name in ("user", "item"):
        moved = differ({name: found[name]}, {name: started[name]})
        assert moved == (name != frozen)


def test_a_given_transformation_updates_the_rows_of_a_batch_alone():
    """And its state goes on where a run stopped, in the folder of that run."""
    given = optax.adam(0.03)
    config = dataclasses.replace(
        config_of(), optimizer=OptimizerConfig(learning_rate=0.03, updates="sparse")
    )
    found = experiment.train(config, None, data_for("cml"), show_progress=False, optimizer=given)
    expected = train(config)
    for x, y in zip(*map(jax.tree.leaves, (found.params, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_with_the_transformation_it_is_given_again(tmp_path):
    given, data = optax.rmsprop(0.03), data_for("cml")

    def run(epochs: int, folder: str) -> dict:
        config = config_of(epochs=epochs)
        return experiment.train(
            config, tmp_path / folder, data, show_progress=False, optimizer=given
        ).params

    run(2, "parts")
    assert_same(run(3, "parts"), run(3, "whole"))

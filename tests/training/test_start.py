"""The tables that a run starts from, and where geometries and models keep their rows."""

import dataclasses

import jax
import numpy as np
from support.small_runs import Run, config_of, differ, with_radius

from hlr_jax.models.cml import CML
from hlr_jax.models.relation import embed_tables
from hlr_jax.training.state import Sizes, init_params


def test_tables_start_from_a_normal_distribution_of_the_embedding_size():
    params = jax.jit(lambda key: init_params(key, CML(16), Sizes(3000, 2000)))(jax.random.key(0))
    assert params["user"].shape == (3000, 16)
    assert params["item"].shape == (2000, 16)
    for table in (params["user"], params["item"]):
        assert abs(np.mean(table)) < 0.01
        np.testing.assert_allclose(np.std(table), 0.25, rtol=0.02)
    assert not np.array_equal(params["user"][:2000], params["item"])


def test_rows_start_and_stay_in_the_ball():
    config = config_of("lrml", {"clip_memory": 0.4, "clip_key": 0.3}, learning_rate=0.5)
    run = Run.of(with_radius(config, 0.7))
    for params in (run.params(), run.steps(run.state(), 0, 3).params):
        bounds = {"user": (params["user"], 0.7), "item": (params["item"], 0.7)}
        bounds |= {"memory": (params["relation"]["memory"], 0.4)}
        bounds |= {"key": (params["relation"]["key"], 0.3)}
        for name, (rows, bound) in bounds.items():
            norms = np.linalg.norm(rows, axis=1)
            assert norms.max() <= bound * (1 + 1e-6), name
            assert norms.max() > 0.9 * bound, name


def test_points_stay_on_the_sphere_and_rows_are_free():
    """Points are rows divided by their length; steps move rows across the sphere and off it."""
    config = with_radius(config_of("cml"), 0.7, "sphere")
    plain = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, name="sgd", learning_rate=0.01)
    )
    run = Run.of(plain)
    started, moved = run.params(), run.steps(run.state(), 0, 3).params
    assert differ(started, moved)
    for params in (started, moved):
        points = embed_tables(run.model, params)
        for name in ("user", "item"):
            lengths = np.linalg.norm(points[name], axis=1)
            np.testing.assert_allclose(lengths, 0.7, rtol=1e-6)
            assert np.std(np.linalg.norm(params[name], axis=1)) > 0.01
    for name in ("user", "item"):
        before, after = (np.linalg.norm(x[name], axis=1) for x in (started, moved))
        # Gradients are tangents: rows only grow, by the square of a step.
        assert (after >= before * (1 - 1e-6)).all()
        assert after.max() > before.max() * (1 + 1e-6) or (after > before * (1 + 1e-6)).any()

"""On an accelerator an epoch is one loop, over its steps: nothing within a step is a loop.

Looked at in what is handed to the compilers for GPUs and TPUs, which needs neither.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest
from support.small_runs import Run, config_of

from hlr_jax.config import LossConfig, SamplingConfig
from hlr_jax.models import RELATIONS
from hlr_jax.parallel.layout import ALONE
from hlr_jax.training import epoch

MODELS = sorted(RELATIONS.names())
SAMPLINGS = {
    "per_example": SamplingConfig(history_length=5, options={"num_negatives": 3}),
    "popular": SamplingConfig(
        history_length=5,
        history="unpopular",
        options={"num_negatives": 3, "popularity_exponent": 0.7},
    ),
    "shared": SamplingConfig("shared", history_length=5, options={"num_negatives": 7}),
    "full_catalog": SamplingConfig("full_catalog", history_length=5),
}
USERS = {
    "users": (SAMPLINGS["full_catalog"], LossConfig("softmax")),
    "users of a pool": (SAMPLINGS["shared"], LossConfig("hinge")),
}


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def lowered(run: Run, platform: str) -> str:
    """What the compiler for a platform gets, of the steps of an epoch on one device."""

    def steps(state, rows, recipe):
        own = rows._replace(order=rows.order[0])
        return epoch._steps(state, own, (0, 3), recipe, ALONE)

    with jax.numpy_dtype_promotion("standard"):
        traced = jax.jit(steps).trace(run.state(), run.rows(), run.recipe)
        return traced.lower(lowering_platforms=(platform,)).as_text()


def functions_of(text: str) -> dict[str, str]:
    """The functions of a module by name."""
    parts = re.split(r"^  func\.func (?:public|private) @", text, flags=re.MULTILINE)[1:]
    return {part[: part.index("(")]: part for part in parts}


def loops_of(text: str) -> int:
    """Count the loops of a module, each as often as it is called from."""
    functions = functions_of(text)

    def count(name: str) -> int:
        body = functions[name]
        called = re.findall(r"call @([\w.]+)", body)
        return len(re.findall(r"stablehlo\.while", body)) + sum(map(count, called))

    return count("main")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("model", MODELS)
def test_the_only_loop_is_over_the_steps(model, sampling, platform, as_on_an_accelerator):
    config = dataclasses.replace(config_of(model), sampling=SAMPLINGS[sampling])
    assert loops_of(lowered(Run.of(config), platform)) == 1


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_only_loop_is_over_the_steps_of_users(model, kind, platform, as_on_an_accelerator):
    sampling, loss = USERS[kind]
    config = config_of(model, batch_of="users", batch_size=5)
    config = dataclasses.replace(config, sampling=sampling, loss=loss)
    assert loops_of(lowered(Run.of(config), platform)) == 1


def test_a_cpu_has_loops_within_a_step():
    """So that what is counted above is there to be found."""
    config = dataclasses.replace(config_of("hlr"), sampling=SAMPLINGS["per_example"])
    assert loops_of(lowered(Run.of(config), "cuda")) > 1


@pytest.mark.parametrize("model", ["cml", "hlr"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_steps_without_loops_are_those_with(model, sampling, monkeypatch):
    config = dataclasses.replace(config_of(model), sampling=SAMPLINGS[sampling])

    def draws():
        run = Run.of(config)
        drawing, source = run.recipe.drawing, run.source
        batch = jax.jit(lambda rows, key: epoch.draw_batch(drawing, source, rows, key, 2))
        return batch(run.order()[1], jax.random.key(3))

    with_loops = draws()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for left, right in zip(*map(jax.tree.leaves, (with_loops, draws())), strict=True):
        np.testing.assert_array_equal(left, right)

"""The same configuration and seed on the same devices: the same bits, whichever process."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.small_runs import Run, config_of, train

from hlr_jax.config import Config
from hlr_jax.parallel import devices

TESTS = pathlib.Path(__file__).parents[1]
CASES = [("cml", "sparse"), ("hlr", "dense")]


def of_case(model: str, updates: str, is_deterministic: bool = False) -> Config:
    config = config_of(model, epochs=2, deterministic=is_deterministic)
    return dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, updates=updates)
    )


def digests(is_deterministic: bool = False) -> list[str]:
    """A hash of what each case trains, of every bit."""
    found = []
    for case in CASES:
        leaves = jax.tree.leaves(train(of_case(*case, is_deterministic)))
        found.append(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest())
    return found


def test_another_process_trains_the_same_bits(monkeypatch):
    """Without the strictness of tests too; HLR on two devices."""
    monkeypatch.setattr(devices, "count", lambda: 2)
    code = (
        "from hlr_jax.parallel import devices; devices.count = lambda: 2; "
        "from training.test_determinism import digests; print(*digests())"
    )
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == digests()


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="atomics are a GPU's; there is none")
def test_a_gpu_trains_the_same_bits_where_it_is_asked_to():
    assert digests(is_deterministic=True) == digests(is_deterministic=True)


def test_programs_for_a_gpu_are_told_and_no_others(monkeypatch):
    assert devices.same_bits_options(True) == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.same_bits_options(False) == {}
    options = devices.same_bits_options(True)
    monkeypatch.undo()
    assert options == {"xla_gpu_deterministic_ops": True}
    # XLA refuses what it does not know, for whatever device it compiles.
    x = np.ones(3, np.float32)
    assert jax.jit(lambda x: -x, compiler_options=options)(x).sum() == -3
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_deterministic_op"):
        jax.jit(lambda x: -x, compiler_options={"xla_gpu_deterministic_op": True})(x)


def test_the_field_reaches_the_recipe():
    assert Run.of(of_case("cml", "dense", True)).recipe.is_deterministic
    assert not Run.of(of_case("cml", "dense")).recipe.is_deterministic

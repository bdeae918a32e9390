"""Measure the fastest matrix product and memory pass of the device, through JAX."""

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import own_process
from benchmarks.timing import seconds

# So many that some are undisturbed on a machine that others use.
_REPEATS = 40
_SIDE = 2000
# 256 MiB: many times any cache.
_FLOATS = 2**26


def device() -> dict[str, Any]:
    """Name the device that JAX runs on."""
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}


def peaks() -> dict[str, float]:
    """Measure a float32 matrix product in GFLOP/s, and streaming in GB/s, reads plus writes."""
    product = 2 * _SIDE**3 / _least_seconds(_product())
    return {"matmul_gflops": product / 1e9, "copy_gbps": 2 * 4 * _FLOATS / _copy_seconds() / 1e9}


def _least_seconds(call: Callable[[], object]) -> float:
    call()
    return min(seconds(call) for _ in range(_REPEATS))


def _product() -> Callable[[], object]:
    matrix = jnp.ones((_SIDE, _SIDE))
    multiply = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    return lambda: multiply(matrix, matrix).block_until_ready()


def _copy_seconds() -> float:
    # Donated, hence in place: a fresh array would be timed for its page faults.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jnp.zeros(_FLOATS)

    def copy() -> None:
        nonlocal array
        array = add(array).block_until_ready()

    return _least_seconds(copy)


def of_whole_cpu() -> dict[str, float]:
    """Measure `peaks` in a process whose one device is the whole CPU."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return own_process.run("benchmarks.peaks", environment=environment)


if __name__ == "__main__":
    print(json.dumps(peaks()))

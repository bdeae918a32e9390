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
    return {"matmul_gflops": product / 1e9, "copy_gbps": streaming_gbps(_FLOATS)}


def _least_seconds(call: Callable[[], object]) -> float:
    call()
    return min(seconds(call) for _ in range(_REPEATS))


def _product() -> Callable[[], object]:
    matrix = jnp.ones((_SIDE, _SIDE))
    multiply = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    return lambda: multiply(matrix, matrix).block_until_ready()


def _copy_seconds(floats: int) -> float:
    # Donated, hence in place: a fresh array would be timed for its page faults.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jnp.zeros(floats)

    def copy() -> None:
        nonlocal array
        array = add(array).block_until_ready()

    return _least_seconds(copy)


def product_tflops(side: int, dtype: str, repeats: int = 10) -> float:
    """Measure products of random square matrices, at the device's default precision.

    Args:
      repeats: products of a call, one after the other, so that the call itself does not count.
    """
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype) / side**0.5

    @jax.jit
    def multiply(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, y: y @ x, x)

    call = functools.partial(lambda x: multiply(x).block_until_ready(), matrix)
    return 2 * side**3 * repeats / _least_seconds(call) / 1e12


def streaming_gbps(floats: int) -> float:
    """Measure a pass over so many numbers in GB/s, reads plus writes."""
    return 2 * 4 * floats / _copy_seconds(floats) / 1e9


def of_whole_cpu() -> dict[str, float]:
    """Measure `peaks` in a process whose one device is the whole CPU."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return own_process.run("benchmarks.peaks", environment=environment)


if __name__ == "__main__":
    print(json.dumps(peaks()))

"""What the device can do at best, measured through JAX in the process that measures the rest."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.timing import seconds

_REPEATS = 7
_SIDE = 2000
# 256 MiB: many times any cache.
_FLOATS = 2**26


def device() -> dict[str, Any]:
    """What JAX runs on."""
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}


def peaks() -> dict[str, float]:
    """Float32 matrix product in GFLOP/s and streaming in GB/s, reads and writes both counted."""
    product = 2 * _SIDE**3 / _median_seconds(_product())
    return {"matmul_gflops": product / 1e9, "copy_gbps": 2 * 4 * _FLOATS / _copy_seconds() / 1e9}


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    return float(np.median([seconds(call) for _ in range(_REPEATS)]))


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

    return _median_seconds(copy)

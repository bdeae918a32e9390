"""Repeat a step: by a compiled loop on a CPU, written out on accelerators.

Each turn of a compiled loop is several launches on a GPU, and a loop is no part of a command
buffer; what is written out becomes a kernel or two. On a CPU a loop costs nothing and compiles
faster.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from hlr_jax.kernels import sizes

_Carry = TypeVar("_Carry")


def repeat(turns: int, step: Callable[[_Carry], _Carry], start: _Carry) -> _Carry:
    """Apply a step a number of times that is known when the program is compiled."""
    if sizes.is_cpu():
        return jax.lax.fori_loop(0, turns, lambda _, carry: step(carry), start)
    for _ in range(turns):
        start = step(start)
    return start


def count_up_to(values: Int[Array, "n"], places: Int[Array, "*k"]) -> Int[Array, "*k"]:
    """Count the values that are at most each of `places`.

    Args:
      values: increasing.
    """
    method = "scan" if sizes.is_cpu() else "scan_unrolled"
    return jnp.searchsorted(values, places, side="right", method=method).astype(jnp.int32)


def add_up(add: Callable[[_Carry, Any], _Carry], start: _Carry, slices: Any) -> _Carry:
    """Add slices to sums one after another; a single one without a loop.

    Args:
      add: returns the sums with a slice added.
      slices: arrays with a leading axis of slices.
    """
    if jax.tree.leaves(slices)[0].shape[0] == 1:
        return add(start, jax.tree.map(lambda x: x[0], slices))
    return jax.lax.scan(lambda sums, part: (add(sums, part), None), start, slices)[0]

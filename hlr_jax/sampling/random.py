"""Draw integers and subsets on the device, as functions of a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, UInt32


def uniform_below(
    key: Key[Array, ""], bound: Int[Array, "*#n"], shape: tuple[int, ...]
) -> Int[Array, "*n"]:
    """Draw uniform integers from 0 to `bound - 1`.

    They are 64 random bits times `bound / 2^64`, rounded down.

    No number is more likely than another by more than `bound / 2^64`. Needs a third of the hashing
    of `jax.random.randint`, and no division (Lemire 2019).
    """
    high, low = jnp.moveaxis(jax.random.bits(key, (*shape, 2), jnp.uint32), -1, 0)
    factor = bound.astype(jnp.uint32)
    below = high * factor  # the lower half of that product
    carried = below + _upper_half(low, factor) < below
    return (_upper_half(high, factor) + carried.astype(jnp.uint32)).astype(jnp.int32)


def _upper_half(x: UInt32[Array, "*#n"], y: UInt32[Array, "*#n"]) -> UInt32[Array, "*n"]:
    """The upper 32 of the 64 bits of `x * y`."""
    x_low, x_high, y_low, y_high = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
    middle = x_high * y_low + (x_low * y_low >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    return x_high * y_high + (middle >> 16) + (other >> 16)


def uniform_subset(
    key: Key[Array, ""], count: Int[Array, ""], length: int
) -> tuple[Int[Array, "p"], Bool[Array, "p"]]:
    """Draw a uniform subset of `min(count, length)` of `0..count - 1`, by Floyd's algorithm.

    For each `j` of the last `length` numbers: draw `t` from `0..j`, take `t`, or `j` if `t` is
    taken already (Bentley and Floyd 1987). Cost does not depend on `count`.
    """
    size = jnp.minimum(count, length)
    step = jnp.arange(length)
    last = count - size + step
    draws = uniform_below(key, jnp.maximum(last, 0) + 1, (length,))

    def take(i: Array, chosen: Array) -> Array:
        taken = jnp.any(chosen == draws[i])
        return chosen.at[i].set(jnp.where(taken, last[i], draws[i]))

    chosen = jax.lax.fori_loop(0, length, take, jnp.full((length,), -1))
    return chosen, step < size

"""Draw integers and subsets on the device, as functions of a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, UInt32

from hlr_jax.kernels import loops, sizes

# After so many rounds two places have gone separate ways but for a chance of 2^-32.
_ROUNDS = 32


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
    take = taken_in_turn if sizes.is_cpu() else taken_at_once
    return take(draws, last), step < size


def taken_in_turn(draws: Int[Array, "p"], last: Int[Array, "p"]) -> Int[Array, "p"]:
    """Take each draw, or the last number that it was drawn from if it is taken already."""

    def take(i: Array, chosen: Array) -> Array:
        taken = jnp.any(chosen == draws[i])
        return chosen.at[i].set(jnp.where(taken, last[i], draws[i]))

    return jax.lax.fori_loop(0, len(draws), take, jnp.full(draws.shape, -1, draws.dtype))


def taken_at_once(draws: Int[Array, "p"], last: Int[Array, "p"]) -> Int[Array, "p"]:
    """Compute `taken_in_turn` without a loop.

    A draw is taken already if an earlier one equals it, or if it is the last number of an earlier
    turn whose own draw was taken. The latter is a chain of turns, each before the one that leads
    to it; its length is halved again and again by following two links at once.

    Args:
      last: consecutive numbers.
    """
    turn = jnp.arange(len(draws))
    repeated = jnp.any((draws[:, None] == draws[None]) & (turn[None] < turn[:, None]), axis=1)
    earlier = draws - last[0]
    leads_on = (earlier >= 0) & (earlier < turn)
    taken, link = repeated, jnp.where(leads_on, earlier, turn)
    for _ in range((len(draws) - 1).bit_length()):
        taken, link = taken | taken[link], link[link]
    return jnp.where(taken, last, draws)


def permuted(
    key: Key[Array, ""],
    places: Int[Array, "*n"],
    part: Int[Array, "*n"],
    part_sizes: Int[Array, "parts"],
) -> Int[Array, "*n"]:
    """Permute the places `0..size - 1` of each part, by a random permutation that the key chooses.

    Each place is computed from itself alone, in 32 rounds of swap-or-not (Hoang, Morris and Rogaway
    2012): a round pairs place `x` with `(shift - x) mod size`, by a random shift, and swaps the two
    or not, by a hash of the larger.

    Args:
      places: within their part.
      part: of each place.
    """
    bits = jax.random.bits(key, (_ROUNDS, len(part_sizes), 2), jnp.uint32)
    shifts = _upper_half(bits[..., 0], part_sizes.astype(jnp.uint32)[None]).astype(jnp.int32)
    size = part_sizes[part]

    def swap_or_not(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        number, x = carry
        mate = shifts[number][part] - x
        mate = jnp.where(mate < 0, mate + size, mate)
        larger = jnp.maximum(x, mate).astype(jnp.uint32)
        swaps = (_hashed(larger ^ bits[number, :, 1][part]) & 1) == 1
        return number + 1, jnp.where(swaps, mate, x)

    return loops.repeat(_ROUNDS, swap_or_not, (jnp.zeros((), jnp.int32), places))[1]


def _hashed(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Mix 32 bits, so that each of them changes about half of the others (Wellons 2018)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)

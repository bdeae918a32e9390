"""Compute `relation_change` by programs of an NVIDIA GPU, written in Pallas.

The forward pass has a program for every user and tile of items. The gradient has one for every
group of users and range of tiles, about `_PROGRAMS` of them: each adds to parts of the gradient
of its own, `[groups, n, d]` and `[ranges, u, P, d]`, and XLA adds the parts up. So nothing of
size `[u, n, P, M]` exists, nor of `[u, n, M]`, and a gradient is the same whenever it is computed
again.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from hlr_jax.functional import MemoryPairs, TwoSidedPairs, memory_attention
from hlr_jax.kernels.relation_change_blocks import FEATURES, Block, backward, forward

# Programs of the gradient, at least, if there are as many pairs: some for each processor of a GPU.
_PROGRAMS = 512
_PRECISIONS = {
    "float32": jax.lax.Precision.HIGHEST,
    "tf32x3": jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
    "tf32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    "bfloat16": jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
}
# What JAX's names of precisions mean for a float32 product on a GPU.
_NAMES = {
    None: "tf32",
    "default": "tf32",
    "fastest": "tf32",
    "tensorfloat32": "tf32",
    "TF32_TF32_F32": "tf32",
    "high": "tf32x3",
    "bfloat16_3x": "tf32x3",
    "TF32_TF32_F32_X3": "tf32x3",
    "bfloat16": "bfloat16",
    "BF16_BF16_F32": "bfloat16",
}


def relation_change_on_gpu(
    pairs: MemoryPairs | TwoSidedPairs,
    beta: float,
    interpret: bool = False,
) -> Float[Array, "u n"]:
    """Compute `functional.relation_change` by programs of an NVIDIA GPU.

    Products have the precision that `jax.default_matmul_precision` says, TF32 by default; they are
    added up in float32.

    Args:
      interpret: whether Pallas imitates the GPU, which is slow, and for tests.
    """
    own: tuple[Array, ...] = ()
    if isinstance(pairs, TwoSidedPairs):
        own, pairs = (pairs.users,), pairs.pairs
    (users, places), (dim, slots) = pairs.mask.shape, pairs.key.shape
    d, m = max(FEATURES, pl.next_power_of_2(dim)), max(16, pl.next_power_of_2(slots))
    # What a program of the gradient adds up, `[T, d]` and `[d, M]`, has to fit into registers.
    tile = 32 if d * m <= 4096 else 16
    tiles = pl.cdiv(len(pairs.items), tile)
    groups, ranges = _grid(users * max(places, 1), len(pairs.items), users, tiles)
    block = Block(
        slots=slots,
        tile=tile,
        tiles=tiles,
        tiles_of_range=pl.cdiv(tiles, ranges),
        users_of_group=pl.cdiv(users, groups),
        beta=beta,
        precision=jax.lax.Precision.HIGHEST if interpret else _precision(),
        interpret=interpret,
    )
    # References that count come first, so that programs read no others.
    order = jnp.argsort(~pairs.mask, axis=1, stable=True)
    rows = jnp.where(pairs.mask[..., None], pairs.rows, 0)
    rows = jnp.take_along_axis(rows, order[..., None], axis=1)
    counts = jnp.sum(pairs.mask, axis=1, dtype=jnp.int32)

    n = tiles * tile
    u = pl.cdiv(users, block.users_of_group) * block.users_of_group
    padded = [
        _pad(pairs.items, n, d),
        _pad(rows, u, max(places, 1), d),
        _pad(pairs.key, d, m),
        _pad(pairs.user_query, u, m),
        _pad(pairs.item_query, n, m),
        _pad(pairs.gram, m, m),
    ]
    for of_users in own:
        found = memory_attention(of_users[:, None], rows, pairs.key)
        p = max(16, pl.next_power_of_2(places))
        padded += [_pad(of_users, u, d), _pad(found, u, p, m)]
    return _change(tuple(padded), _pad(counts, u), block)[:users, : len(pairs.items)]


def _precision() -> Any:
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return _PRECISIONS[_NAMES.get(asked, "float32")]


def _grid(references: int, items: int, users: int, tiles: int) -> tuple[int, int]:
    """Choose how many groups of users and ranges of tiles: so that parts are the smallest.

    Parts of the gradient are `groups * items + ranges * references` rows.
    """
    groups = min(users, max(1, round(math.sqrt(_PROGRAMS * references / items))))
    ranges = min(tiles, pl.cdiv(_PROGRAMS, groups))
    return min(users, max(groups, pl.cdiv(_PROGRAMS, ranges))), ranges


def _pad(x: Array, *shape: int) -> Array:
    return jnp.pad(x, [(0, size - have) for size, have in zip(shape, x.shape, strict=True)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _change(inputs: tuple[Array, ...], counts: Int[Array, " u"], block: Block) -> Array:
    items, users = inputs[0], inputs[1]
    return pl.pallas_call(
        functools.partial(forward, block=block),
        out_shape=jax.ShapeDtypeStruct((len(users), len(items)), items.dtype),
        grid=(block.tiles, len(users)),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=block.interpret,
        name="relation_change",
    )(counts, *inputs)


def _change_forward(
    inputs: tuple[Array, ...], counts: Int[Array, " u"], block: Block
) -> tuple[Array, Any]:
    return _change(inputs, counts, block), (inputs, counts)


def _change_backward(block: Block, saved: Any, cotangent: Array) -> tuple[Any, None]:
    inputs, counts = saved
    groups = len(counts) // block.users_of_group
    ranges = pl.cdiv(block.tiles, block.tiles_of_range)
    # Of `Gradients`, one after another: where its parts are of ranges, of groups, or of both.
    # The last two are HLR++'s.
    both = (ranges, groups)
    leading = ((groups,), (ranges,), both, (ranges,), (groups,), both, (ranges,), (ranges,))
    parts = [
        jnp.zeros((*sizes, *x.shape), x.dtype) for sizes, x in zip(leading, inputs, strict=False)
    ]
    arguments = (counts, *inputs, cotangent)
    parts = pl.pallas_call(
        functools.partial(backward, block=block),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in parts],
        grid=(ranges, groups),
        input_output_aliases={len(arguments) + n: n for n in range(len(parts))},
        compiler_params=plgpu.CompilerParams(num_warps=8, num_stages=1),
        interpret=block.interpret,
        name="relation_change_gradient",
    )(*arguments, *parts)
    sums = (jnp.sum(x, axis=tuple(range(len(s)))) for x, s in zip(parts, leading, strict=False))
    return tuple(sums), None


_change.defvjp(_change_forward, _change_backward)

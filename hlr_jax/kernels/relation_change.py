"""Compute how relations change the distances of all users and items, in little memory."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import MemoryPairs, TwoSidedPairs, attention_weights, memory_attention
from hlr_jax.kernels import relation_change_gpu as gpu
from hlr_jax.kernels.sizes import table_tile
from hlr_jax.kernels.tiled_scores import tilewise

Implementation = Literal["auto", "xla", "pallas"]
Precision = Literal["highest", "tf32x3", "tf32"]

_PRECISIONS = {
    "highest": jax.lax.Precision.HIGHEST,
    "tf32x3": jax.lax.Precision.HIGH,
    "tf32": jax.lax.Precision.DEFAULT,
}


def relation_change(
    pairs: MemoryPairs | TwoSidedPairs,
    beta: float = 1.0,
    implementation: Implementation = "auto",
    precision: Precision = "highest",
) -> Float[Array, "u n"]:
    """Compute `functional.relation_change` without its products `[u, n, P, d]`.

    The gradient computes slot weights `[u, n, P, M]` again, a tile of items at a time.

    Args:
      implementation: "pallas" are programs for NVIDIA GPUs, "xla" runs everywhere, "auto" takes
        the former where they run.
      precision: of products: "highest" is full float32, "tf32x3" near it, "tf32" has 10 bits.
    """
    one = _one_sided(pairs)
    if not (len(one.items) and len(one.mask)):
        return jnp.zeros((len(one.mask), len(one.items)), one.items.dtype)
    if implementation == "pallas":
        _require_gpu(pairs)
    if implementation == "pallas" or (
        implementation == "auto" and gpu.has_gpu() and gpu.fits(pairs)
    ):
        return gpu.relation_change_on_gpu(pairs, beta, precision)
    return relation_change_by_tiles(pairs, beta, precision)


def relation_change_by_tiles(
    pairs: MemoryPairs | TwoSidedPairs, beta: float, precision: Precision = "highest"
) -> Float[Array, "u n"]:
    """Compute `functional.relation_change` for a tile of items at a time.

    The items are the last axis of what is summed over slots and references, `[u, P, M, T]`.
    """
    own: tuple[Array, ...] = ()
    if isinstance(pairs, TwoSidedPairs):
        own, pairs = (pairs.users,), pairs.pairs
    (users, places), (dim, slots) = pairs.mask.shape, pairs.key.shape
    rows = jnp.where(pairs.mask[..., None], pairs.rows, 0)
    query, key, gram, mask = pairs.user_query, pairs.key, pairs.gram, pairs.mask
    of_users = [(x, memory_attention(x[:, None], rows, key)) for x in own]
    product = functools.partial(jnp.einsum, precision=_PRECISIONS[precision])

    @jax.checkpoint
    def of_tile(tile: Float[Array, "t a"]) -> Float[Array, "u t"]:
        items, item_query = tile[:, :dim].T, tile[:, dim:].T
        # (p * i) @ key = p @ (i * key), which is one product for all rows.
        keyed = items[:, None, :] * key[:, :, None]
        found = jax.nn.softmax(product("upd,dmt->upmt", rows, keyed), axis=2)
        logits = jnp.sum(found * query[:, None, :, None], axis=2)
        c = jnp.sum(_attention(logits, mask, beta)[:, :, None] * found, axis=1)  # [u, M, T]
        for user, known in of_users:
            found = jax.nn.softmax(product("ud,dmt->umt", user, keyed), axis=1)
            logits = product("upm,mt->upt", known, item_query)
            own_logits = jnp.sum(found * item_query[None], axis=1, keepdims=True)
            logits = jnp.concatenate([own_logits, logits], axis=1)
            every = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
            weights = _attention(logits, every, beta)
            c += weights[:, :1] * found + product("upt,upm->umt", weights[:, 1:], known)
        queries = 2 * (query[..., None] - item_query[None])
        return jnp.sum(c * (queries + product("lm,umt->ult", gram, c)), axis=1)

    size = max(1, min(len(pairs.items), table_tile(max(users * places, 1), slots)))
    return tilewise(of_tile, jnp.concatenate([pairs.items, pairs.item_query], axis=1), size)


def _attention(
    logits: Float[Array, "u p t"], mask: Bool[Array, "u p"], beta: float
) -> Float[Array, "u p t"]:
    """Compute `attention_weights` over the middle axis."""
    weights = attention_weights(jnp.moveaxis(logits, 1, 2), mask[:, None], beta)
    return jnp.moveaxis(weights, 2, 1)


def _one_sided(pairs: MemoryPairs | TwoSidedPairs) -> MemoryPairs:
    return pairs.pairs if isinstance(pairs, TwoSidedPairs) else pairs


def _require_gpu(pairs: MemoryPairs | TwoSidedPairs) -> None:
    if not gpu.has_gpu():
        raise InputError(
            f"implementation 'pallas' runs on NVIDIA GPUs, not on {jax.default_backend()}; "
            "use 'auto' or 'xla'"
        )
    if not gpu.fits(pairs):
        one = _one_sided(pairs)
        raise InputError(
            f"implementation 'pallas' takes float32 of {gpu.LIMITS}, not {one.items.dtype} of "
            f"{one.key.shape[0]} features, {one.key.shape[1]} slots, {one.mask.shape[0]} users and "
            f"{one.mask.shape[1]} places; use 'auto' or 'xla'"
        )

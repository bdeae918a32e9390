"""Compute how relations change the distances of all users and items, in little memory."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import MemoryPairs, attention_weights
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
    pairs: MemoryPairs,
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
    if not (pairs.items.size and pairs.mask.size):
        return jnp.zeros((len(pairs.rows), len(pairs.items)), pairs.items.dtype)
    if implementation == "pallas":
        _require_gpu(pairs)
    if implementation == "pallas" or (
        implementation == "auto" and gpu.has_gpu() and gpu.fits(pairs)
    ):
        return gpu.relation_change_on_gpu(pairs, beta, precision)
    return relation_change_by_tiles(pairs, beta, precision)


def relation_change_by_tiles(
    pairs: MemoryPairs, beta: float, precision: Precision = "highest"
) -> Float[Array, "u n"]:
    """Compute `functional.relation_change` for a tile of items at a time.

    The items are the last axis of what is summed over slots and references, `[u, P, M, T]`.
    """
    (users, places), (dim, slots) = pairs.mask.shape, pairs.key.shape
    rows = jnp.where(pairs.mask[..., None], pairs.rows, 0).reshape(-1, dim)
    query = pairs.user_query

    @jax.checkpoint
    def of_tile(tile: Float[Array, "t a"]) -> Float[Array, "u t"]:
        items, item_query = tile[:, :dim], tile[:, dim:]
        # (p * i) @ key = p @ (i * key), which is one product for all references.
        keyed = (items.T[:, None, :] * pairs.key[:, :, None]).reshape(dim, -1)
        logits = jnp.matmul(rows, keyed, precision=_PRECISIONS[precision])
        found = jax.nn.softmax(logits.reshape(users, places, slots, len(items)), axis=2)
        logits = jnp.moveaxis(jnp.sum(found * query[:, None, :, None], axis=2), 1, 2)
        weights = attention_weights(logits, pairs.mask[:, None], beta)
        c = jnp.sum(jnp.moveaxis(weights, 2, 1)[:, :, None] * found, axis=1)  # [u, M, T]
        queries = 2 * (query[..., None] - item_query.T[None])
        gram = jnp.einsum("lm,umt->ult", pairs.gram, c, precision=_PRECISIONS[precision])
        return jnp.sum(c * (queries + gram), axis=1)

    size = min(len(pairs.items), table_tile(users * places, slots))
    return tilewise(of_tile, jnp.concatenate([pairs.items, pairs.item_query], axis=1), size)


def _require_gpu(pairs: MemoryPairs) -> None:
    if not gpu.has_gpu():
        raise InputError(
            f"implementation 'pallas' runs on NVIDIA GPUs, not on {jax.default_backend()}; "
            "use 'auto' or 'xla'"
        )
    if not gpu.fits(pairs):
        raise InputError(
            f"implementation 'pallas' takes float32 of {gpu.LIMITS}, not {pairs.items.dtype} of "
            f"{pairs.key.shape[0]} features, {pairs.key.shape[1]} slots and {len(pairs.rows)} "
            "users; use 'auto' or 'xla'"
        )

"""Compute how relations change the distances of all users and items, in little memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import MemoryPairs, TwoSidedPairs, attention_weights, memory_attention
from hlr_jax.kernels.sizes import table_tile
from hlr_jax.kernels.tiled_scores import tilewise

IMPLEMENTATIONS = ("auto", "xla", "pallas")
# The largest sizes of which a program holds what it has to in registers.
_MOST_SLOTS, _MOST_FEATURES, _MOST_PLACES = 64, 256, 128
# A grid has fewer than 2**16 programs along its second axis, users that fill up a group too.
_MOST_USERS = 2**15
# In words.
_LIMITS = (
    f"at most {_MOST_FEATURES} features, {_MOST_SLOTS} slots and {_MOST_USERS} users "
    f"(for HLR++ also {_MOST_PLACES} places)"
)


def relation_change(
    pairs: MemoryPairs | TwoSidedPairs, beta: float = 1.0, implementation: str = "auto"
) -> Float[Array, "u n"]:
    """Compute `functional.relation_change` without its products `[u, n, P, d]`.

    The gradient computes slot weights `[u, n, P, M]` again, a tile of items at a time.

    Args:
      implementation: "pallas" are programs for NVIDIA GPUs, "xla" runs everywhere, "auto" takes
        the former where they run.

    Raises:
      InputError: "pallas", where it does not run; or another word.
    """
    if implementation not in IMPLEMENTATIONS:
        raise InputError(
            f"implementation {implementation!r}: use one of {', '.join(IMPLEMENTATIONS)}"
        )
    one = _one_sided(pairs)
    if not (len(one.items) and len(one.mask)):
        return jnp.zeros((len(one.mask), len(one.items)), one.items.dtype)
    if implementation == "pallas":
        require_gpu()
        _require_fit(pairs)
    if not is_by_gpu(pairs, implementation):
        return relation_change_by_tiles(pairs, beta)
    from hlr_jax.kernels import relation_change_gpu  # Which imports Pallas.

    return relation_change_gpu.relation_change_on_gpu(pairs, beta)


def is_by_gpu(pairs: MemoryPairs | TwoSidedPairs, implementation: str = "auto") -> bool:
    """Tell whether `relation_change` takes the programs for NVIDIA GPUs."""
    return implementation != "xla" and has_gpu() and fits(pairs)


def has_gpu() -> bool:
    """Tell whether programs of Triton run here: on an NVIDIA GPU of Ampere or later."""
    if jax.default_backend() != "gpu":
        return False
    # An AMD GPU names an architecture there.
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    return capability.replace(".", "", 1).isdigit() and float(capability) >= 8


def fits(pairs: MemoryPairs | TwoSidedPairs) -> bool:
    """Tell whether the programs are written for these sizes and numbers."""
    users: tuple[Array, ...] = ()
    if isinstance(pairs, TwoSidedPairs):
        # Attention over a history is all at once there.
        if pairs.pairs.mask.shape[1] > _MOST_PLACES:
            return False
        users, pairs = (pairs.users,), pairs.pairs
    dim, slots = pairs.key.shape
    small = slots <= _MOST_SLOTS and dim <= _MOST_FEATURES and len(pairs.rows) <= _MOST_USERS
    floats = (*users, *(x for x in pairs if x is not pairs.mask))
    return small and all(x.dtype == jnp.float32 for x in floats)


def relation_change_by_tiles(
    pairs: MemoryPairs | TwoSidedPairs, beta: float
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

    @jax.checkpoint
    def of_tile(tile: Float[Array, "t a"]) -> Float[Array, "u t"]:
        items, item_query = tile[:, :dim].T, tile[:, dim:].T
        # (p * i) @ key = p @ (i * key), which is one product for all rows.
        keyed = items[:, None, :] * key[:, :, None]
        found = jax.nn.softmax(jnp.einsum("upd,dmt->upmt", rows, keyed), axis=2)
        logits = jnp.sum(found * query[:, None, :, None], axis=2)
        c = jnp.sum(_attention(logits, mask, beta)[:, :, None] * found, axis=1)  # [u, M, T]
        for user, known in of_users:
            found = jax.nn.softmax(jnp.einsum("ud,dmt->umt", user, keyed), axis=1)
            logits = jnp.einsum("upm,mt->upt", known, item_query)
            own_logits = jnp.sum(found * item_query[None], axis=1, keepdims=True)
            logits = jnp.concatenate([own_logits, logits], axis=1)
            every = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
            weights = _attention(logits, every, beta)
            c += weights[:, :1] * found + jnp.einsum("upt,upm->umt", weights[:, 1:], known)
        queries = 2 * (query[..., None] - item_query[None])
        return jnp.sum(c * (queries + jnp.einsum("lm,umt->ult", gram, c)), axis=1)

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


def require_gpu() -> None:
    """Raise InputError where programs of Triton do not run."""
    if not has_gpu():
        raise InputError(
            f"implementation 'pallas' runs on NVIDIA GPUs, not on {jax.default_backend()}; "
            "use 'auto' or 'xla'"
        )


def _require_fit(pairs: MemoryPairs | TwoSidedPairs) -> None:
    if not fits(pairs):
        one = _one_sided(pairs)
        raise InputError(
            f"implementation 'pallas' takes float32 of {_LIMITS}, not {one.items.dtype} of "
            f"{one.key.shape[0]} features, {one.key.shape[1]} slots, {one.mask.shape[0]} users and "
            f"{one.mask.shape[1]} places; use 'auto' or 'xla'"
        )

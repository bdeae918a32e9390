"""The ranking function as StableHLO, for any number of users, on CPUs, NVIDIA GPUs and TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array

from hlr_jax.errors import InputError
from hlr_jax.evaluation.ranking import Tables
from hlr_jax.models.relation import apply
from hlr_jax.types import HistoryIds

PLATFORMS = ("cpu", "cuda", "tpu")


def serialized(tables: Tables, k: int) -> bytes:
    """Compile ranking to a serialised `jax.export.Exported`, the tables in it.

    It is a function of

    - `users [b]` int32: rows of `users.parquet`;
    - `history [b, P]` int32 and `mask [b, P]` bool: rows of the items that the relation reads, and
      which of them count; P = 0 for a model that reads no history. For one that reads the order of
      time the last item comes first;
    - `seen [b, s]` int32: rows of items that are not ranked, filled up by the number of items;

    and returns `items [b, k]` int32, best first, and `scores [b, k]` float32.

    Raises:
      InputError: the package flatbuffers is not installed.
    """
    model, params, length = tables.model, tables.params, tables.draw.length

    def of_one(arguments: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        user, items, mask, seen = arguments
        users, catalogue = params["user"][user][None], params["item"]
        history = HistoryIds(items[None], mask[None])
        scores = apply(model, params["relation"], "scores", users, catalogue, catalogue, history)
        scores, best = jax.lax.top_k(scores[0].at[seen].set(-jnp.inf, mode="drop"), k)
        return best, scores

    def ranking(users: Array, history: Array, mask: Array, seen: Array) -> tuple[Array, Array]:
        with jax.default_matmul_precision("highest"):
            found: tuple[Array, Array] = jax.lax.map(of_one, (users, history, mask, seen))
        return found

    users, some = jax_export.symbolic_shape("b, s")
    shape = jax.ShapeDtypeStruct
    arguments = (
        shape((users,), jnp.int32),
        shape((users, length), jnp.int32),
        shape((users, length), jnp.bool_),
        shape((users, some), jnp.int32),
    )
    exported: Any = jax_export.export(jax.jit(ranking), platforms=PLATFORMS)(*arguments)
    try:
        return bytes(exported.serialize())
    except ImportError:
        raise InputError("a compiled function needs pip install 'hlr_jax[export]'") from None

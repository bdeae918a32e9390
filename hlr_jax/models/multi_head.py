"""LRML with several heads, each on dimensions of its own: ours, from no paper."""

import functools
from collections.abc import Iterator

import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.functional import Attention, memory_attention
from hlr_jax.models.lrml import LRML, lrml_relation
from hlr_jax.models.memory import Matrices, single_reference, slot_attention
from hlr_jax.registry import register
from hlr_jax.types import History, HistoryIds


def multi_head_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
    heads: int,
) -> Float[Array, "*b d"]:
    """Join the `lrml_relation` of each head, on `d / heads` dimensions of rows, key and memory.

    Heads are those of attention (Vaswani et al., NeurIPS 2017, section 3.2.2), without matrices
    that mix dimensions. One head is LRML (Tay et al., WWW 2018).
    """
    parts = head_parts(user, item, (key, memory), heads)
    return jnp.concatenate([lrml_relation(*rows, *own) for rows, own in parts], axis=-1)


def head_parts(
    user: Float[Array, "*b d"], item: Float[Array, "*c d"], matrices: Matrices, heads: int
) -> Iterator[tuple[tuple[Array, Array], Matrices]]:
    """Take the dimensions of each head out of users, items, key and memory."""
    key, memory = matrices
    split = functools.partial(jnp.split, indices_or_sections=heads)
    users, items, memories = (split(x, axis=-1) for x in (user, item, memory))
    for *rows, own_key, own_memory in zip(users, items, split(key), memories, strict=True):
        yield (rows[0], rows[1]), (own_key, own_memory)


@register("multi_head")
class MultiHead(LRML):
    """The user-item pair addresses a memory, dimensions of each head by themselves.

    Squared Euclidean distances are sums over dimensions, so over heads: the fast ways are LRML's.
    Forms and norms of slots are those of whole slots, of which each head reads a part.

    Attributes:
      heads: that the dimensions are divided between.
    """

    heads: int = 2

    def check(self) -> None:
        super().check()
        divides = self.heads >= 1 and self.dim % self.heads == 0
        self.require(divides, "heads", f"use a divisor of config.model.dim={self.dim}")

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return multi_head_relation(user, item, *self.shared, self.heads)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        parts = enumerate(head_parts(user, item, self.shared, self.heads), 1)
        return {f"slots_{n}": slot_attention(single_reference(*x, *own)) for n, (x, own) in parts}

    def slot_weights(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Float[Array, "*b m"]]:
        """Compute those of each head, which reads its own part of the slots."""
        parts = enumerate(head_parts(user, item, self.shared, self.heads), 1)
        return {f"memory_{n}": memory_attention(*x, own[0]) for n, (x, own) in parts}

    def euclidean_pairwise(
        self, users: Float[Array, "u d"], items: Float[Array, "k d"], history: History
    ) -> Float[Array, "u k"]:
        """Add up the heads' distances, each by slot weights `[u, M, k]`."""
        parts = head_parts(users, items, self.shared, self.heads)
        return sum_of(self.distances_by_slots(*rows, own) for rows, own in parts)

    def euclidean_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Add up the heads' scores."""
        parts = head_parts(users, tile, self.shared, self.heads)
        return sum_of(self.scores_by_slots(*rows, own) for rows, own in parts)


def sum_of(parts: Iterator[Float[Array, "u k"]]) -> Float[Array, "u k"]:
    """Add up without a zero to start from, which has no shape."""
    return functools.reduce(jnp.add, parts)

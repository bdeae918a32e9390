"""Read relations from a memory, as LRML and its successors do, for a pair or over a history."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.functional import (
    SLOT_FORMS,
    Attention,
    MemoryPairs,
    References,
    TwoSidedPairs,
    centred_slots,
    memory_attention,
    orthogonal_slots,
    pairwise_squared_distances,
    project_on_ball,
    scaled_slots,
    slot_similarity,
    translated_distance,
)
from hlr_jax.kernels import history_attention
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.kernels.known_slots import KnownSlots
from hlr_jax.kernels.relation_change import IMPLEMENTATIONS, has_gpu, relation_change
from hlr_jax.kernels.sizes import table_tile
from hlr_jax.models.relation import Relation
from hlr_jax.types import History, HistoryIds, Params

Matrices = tuple[Float[Array, "d m"], Float[Array, "m d"]]


class MemoryRelation(Relation):
    """A relation read from `slots` memory rows addressed by a key.

    Attributes:
      slots: `M`, memory slots.
      clip_memory: radius that each memory slot `[d]` is projected on after a step; 0 leaves
        them free. The published option `clip_memory` is 1 here and for `clip_key`.
      clip_key: the same for the key `[d, M]`, feature by feature over the slots, as the
        published code has it.
      slot_form: of the slots that are read: free, centred (minus their mean, so that equal slot
        weights read a relation of zero) or orthogonal.
      slot_norm: norm that each slot is given then; 0 leaves it.
      key_scale: factor of the key: an inverse temperature of the slot weights.
      similarity_weight: of the mean squared cosine between slots, added to the loss of each step.
      implementation: of the distances between all users and all items: "pallas" are programs for
        NVIDIA GPUs, "xla" runs everywhere, "auto" takes the former where they run.
    """

    slots: int = 20
    clip_memory: float = 0.0
    clip_key: float = 0.0
    slot_form: str = "free"
    slot_norm: float = 0.0
    key_scale: float = 1.0
    similarity_weight: float = 0.0
    implementation: str = "auto"

    def check(self) -> None:
        self.require(self.slots >= 1, "slots", "use at least 1 memory slot")
        for option in ("clip_memory", "clip_key"):
            self.require(getattr(self, option) >= 0, option, "use a radius, or 0 for none")
        self.require(
            self.slot_form in SLOT_FORMS, "slot_form", f"use one of {', '.join(SLOT_FORMS)}"
        )
        fits = self.slot_form != "orthogonal" or self.slots <= self.dim
        self.require(fits, "slots", f"use at most config.model.dim={self.dim} orthogonal slots")
        fits = self.slot_form != "centred" or self.slots >= 2
        self.require(fits, "slots", "use 2 or more; a single slot minus their mean is zero")
        self.require(self.key_scale > 0, "key_scale", "use a factor above 0; 1 changes nothing")
        for option in ("slot_norm", "similarity_weight"):
            self.require(getattr(self, option) >= 0, option, "use 0 or more; 0 is without")
        known = self.implementation in IMPLEMENTATIONS
        self.require(known, "implementation", f"use one of {', '.join(IMPLEMENTATIONS)}")

    def check_devices(self) -> None:
        runs = self.implementation != "pallas" or has_gpu()
        self.require(runs, "implementation", "that runs on NVIDIA GPUs; use auto or xla")

    def setup(self) -> None:
        self.shared = self.matrices()

    def memories(self) -> dict[str, Float[Array, "m d"]]:
        return {"memory": self.shared[1]}

    def distances_of_pairs(
        self,
        users: Float[Array, "u d"],
        items: Float[Array, "k d"],
        pairs: MemoryPairs | TwoSidedPairs,
        beta: float = 1.0,
    ) -> Float[Array, "u k"]:
        """Measure squared Euclidean distances by how the relation changes them."""
        # A model that was trained by programs of a GPU is measured without one too.
        implementation = self.implementation if has_gpu() else "xla"
        change = relation_change(pairs, beta, implementation)
        return pairwise_squared_distances(users, items) + change

    def matrices(self, prefix: str = "") -> Matrices:
        """Make parameters `key [d, M]` and `memory [M, d]`, from Normal(0, 1/sqrt(d)).

        Returns:
          Both in the form that the options ask for, which is what relations read.
        """
        init = nn.initializers.normal(self.dim**-0.5)
        key = self.param(prefix + "key", init, (self.dim, self.slots), jnp.float32)
        memory = self.param(prefix + "memory", init, (self.slots, self.dim), jnp.float32)
        return self.key_scale * key, self.formed(memory)

    def formed(self, memory: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """Form and scale the slots, with gradients through both."""
        if self.slot_form == "centred":
            memory = centred_slots(memory)
        elif self.slot_form == "orthogonal":
            memory = orthogonal_slots(memory)
        # A norm is a number of the compiled program, 0 too.
        scaled = scaled_slots(memory, jnp.where(self.slot_norm > 0, self.slot_norm, 1.0))
        return jnp.where(self.slot_norm > 0, scaled, memory)

    def parameter_penalty(self, params: Params) -> Float[Array, ""]:
        """Weigh the mean squared cosine between slots, summed over memories."""
        memories = [x for name, x in params.items() if name.endswith("memory")]
        found = jnp.stack([slot_similarity(self.formed(memory)) for memory in memories])
        return self.similarity_weight * jnp.sum(found)

    def project(self, params: Params) -> Params:
        def bound(name: str, x: Array) -> Array:
            radius = self.clip_key if name.endswith("key") else self.clip_memory
            # A radius is a number of the compiled program, 0 too.
            bounded = project_on_ball(x, jnp.where(radius > 0, radius, 1.0))
            return jnp.where(radius > 0, bounded, x)

        return {name: bound(name, x) for name, x in params.items()}


class HistoryRelation(MemoryRelation):
    """A memory relation between the item and each item of the user's history.

    Subclasses say in `from_references` what they make of these.

    Attributes:
      beta: smoothing of the attention over references; 1 is a softmax.
    """

    beta: float = 1.0

    static: ClassVar[tuple[str, ...]] = ("beta",)
    uses_history: ClassVar[bool] = True

    def check(self) -> None:
        super().check()
        self.require(self.beta >= 0, "beta", "use 0 or more; 1 is a softmax")

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        """Compute the relation from the item's references `s_k = softmax((item * p_k) @ key)`.

        Args:
          references: with the `rows_before` a history, and with the history.
        """
        raise NotImplementedError

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return self.from_references(user, item, history, self.references(user, item, history))

    def references(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> References:
        """Compute the item's references: the rows before the history, and the history."""
        rows, mask = self.rows_before(user).joined(history)
        return history_references(item, rows, mask, *self.shared)

    def attentions(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> dict[str, Attention]:
        return {"slots": slot_attention(self.references(user, item, history))}

    def rows_before(self, user: Float[Array, "*b d"]) -> History:
        """Choose rows that an item refers to before the user's history: none by default."""
        return History.empty(user)

    def known_slots(
        self, items: Float[Array, "k d"], history: HistoryIds
    ) -> KnownSlots | HistoryIds:
        """Compute slot weights of items with histories, where distances are sums over slots."""
        is_linear = self.geometry.is_euclidean and history.items.shape[1] > 0
        return KnownSlots.of(items, history, *self.shared) if is_linear else history

    def general_scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score by slot weights of pairs of items, computed once per tile for all users.

        This works for any `from_references` and geometry; a subclass that knows its relation's
        coordinates in the memory has `euclidean_scores` by `tiles.relation_scores` too, which take
        a fraction of the time.
        """
        key, memory = self.shared
        rows, places = needed_rows(catalogue, histories)

        def scores_of_tile(items: Array) -> Array:
            slots = tiles.tile_memory_attention(rows, items, key)

            def scores_of_one(user: Array, ids: Array, place: Array, mask: Array) -> Array:
                history = History(catalogue[ids][None], mask[None])
                before = self.rows_before(user[None])
                own = memory_attention(items[:, None], before.rows, key)
                found = jnp.concatenate([own, jnp.moveaxis(slots[place], -1, 0)], axis=1)
                mask = jnp.concatenate([before.mask, mask[None]], axis=1)
                references = References(found, mask, memory)
                relation = self.from_references(user[None], items, history, references)
                return -translated_distance(self.geometry, user[None], relation, items)

            args = (users, histories.items, places, histories.mask)
            floats = len(items) * (self.slots * places.shape[1] + self.dim)
            return tiles.rowwise(scores_of_one, args, floats)

        return tiles.tilewise(scores_of_tile, tile, table_tile(len(rows), self.slots))


def needed_rows(
    catalogue: Float[Array, "i d"], histories: HistoryIds
) -> tuple[Float[Array, "n d"], Int[Array, "u p"]]:
    """Gather the rows that histories refer to, if fewer than all, and where each stands there."""
    if histories.items.size >= len(catalogue):
        return catalogue, histories.items
    places = jnp.arange(histories.items.size).reshape(histories.items.shape)
    return catalogue[histories.items].reshape(-1, catalogue.shape[1]), places


def single_reference(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
) -> References:
    """Take the user-item pair as the only reference: its slot weights are LRML's."""
    slots = memory_attention(user, item, key)[..., None, :]
    return References(slots, jnp.ones(slots.shape[:-1], bool), memory)


def slot_attention(references: References) -> Attention:
    """Take the slot weights of the references that count."""
    return Attention(references.slots, references.mask[..., None])


def history_references(
    target: Float[Array, "*#b d"],
    history: Float[Array, "*#b p d"],
    mask: Bool[Array, "*#b p"],
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
) -> References:
    """Take each row of a history as a reference: `s_k = softmax((target * p_k) @ key)`."""
    if target.ndim > 1 and history.shape[:-2] == (*target.shape[:-2], 1):
        slots = history_attention(target, history[..., 0, :, :], key)
    else:
        slots = memory_attention(target[..., None, :], history, key)
    return References(slots, mask, memory)

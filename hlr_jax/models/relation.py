"""The contract: a model is a relation.

Every model of the family ranks items by the distance `D(user + r, item)` in a geometry, and differs
from the others only in the vector `r(user, item | history)`. A model is a subclass of `Relation`
that says what `r` is; training, checkpoints, evaluation, ranking and recommendation follow from
that. The embedding tables are not the module's: it is handed rows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import Attention, translate, translated_distance
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.kernels.sizes import pair_tile, scoring_sizes
from hlr_jax.kernels.tiled_scores import blockwise, tilewise
from hlr_jax.registry import (
    Options,
    check_annotations,
    make_defaults_floats,
    path_of,
    register_pytree,
)
from hlr_jax.types import History, HistoryIds, Params

# Fields that are no options: the library and Flax set them.
FIXED = ("dim", "geometry", "parent", "name")

# Methods that compute what others define, and by which methods it is defined. A class that defines
# one of the latter again does not inherit the former: they would rank by another relation.
_FOLLOWS = {
    "general_pairwise": ("__call__",),
    "general_scores": ("__call__",),
    "euclidean_pairwise": ("__call__", "from_references", "rows_before"),
    "euclidean_scores": ("__call__", "from_references", "rows_before"),
    "known_of_items": ("__call__", "from_references", "rows_before"),
    "known_distances": ("__call__", "from_references", "rows_before"),
    "attentions": ("__call__", "from_references", "rows_before"),
    "slot_weights": ("__call__", "from_references", "rows_before"),
}


class Relation(Options, nn.Module):
    """Base of all models. Annotated fields are the options that `config.model` takes.

    Rows that a model reads are points of its geometry. Float options are traced: another value
    needs no new compilation, and `__call__` must not branch on them in Python; name those that
    shape the program in `static`.

    Attributes:
      dim: `d`, the embedding size.
      geometry: in which distances are measured.
      uses_history: whether `__call__` reads the history (if not, none is sampled).
      reads_order: whether its order counts: the item before the target first, then back in time.
      uses_neighbours: whether rows of users and items are handed over as `[.., 2 d]`, followed by
        the mean row of their neighbours in training: of a user's items, of an item's users.
        These means are constants in the gradient.
      uses_features: whether training reads features of items, by `features_penalty`.
      reads_item: whether the relation depends on the item; if not, users are translated once.
      has_relation: whether there is one; if not, it is zero, and there is nothing to diagnose.
    """

    dim: int
    geometry: Geometry = Ball()

    section: ClassVar[str] = "model"
    uses_history: ClassVar[bool] = False
    reads_order: ClassVar[bool] = False
    uses_neighbours: ClassVar[bool] = False
    uses_features: ClassVar[bool] = False
    reads_item: ClassVar[bool] = True
    has_relation: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = vars(cls)
        if any(name in own for name in ("distance", "distances", "translated")):
            raise InputError(
                f"{path_of(cls)} defines a distance of its own, by which shared negatives and "
                "ranking would not measure; write a Geometry instead"
            )
        check_annotations(cls, reserved=FIXED)
        for fast, definitions in _FOLLOWS.items():
            if fast not in own and any(name in own for name in definitions):
                setattr(cls, fast, getattr(Relation, fast))
        for name in ("reads_item", "has_relation"):
            if "__call__" in own and name not in own:
                setattr(cls, name, True)
        make_defaults_floats(cls)
        super().__init_subclass__(**kwargs)
        fields = [f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]
        register_pytree(cls, fields, _unchecked)

    @property
    def user_width(self) -> int:
        """Numbers in a user's row of the table: `d`, or of several vectors one after another.

        The first vector is the one that the relation translates. At 0 users have no rows: their
        table is `[U, 0]`, and the relation leads from the origin to where a user is. Such a model
        reads no neighbours.
        """
        return self.dim

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        """Compute the relation `r` that translates each user to each item.

        Args:
          user: `[*b, d]`, or as wide as `user_width` says.
          item: `[*b, d]`; batch axes broadcast against the user's (axes of size 1 stretch).
          history: `rows [*b, P, d]` and `mask [*b, P]`; P = 0 if `uses_history` is False.
        """
        raise NotImplementedError

    def distances(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b i"], history: History
    ) -> Float[Array, "*b"]:
        """Measure `D(user + r, item)`, on the first vector of each row."""
        return self.distances_by(self(user, item, history), user, item)

    def distances_by(
        self,
        relation: Float[Array, "*#b d"],
        user: Float[Array, "*#b u"],
        item: Float[Array, "*#b i"],
    ) -> Float[Array, "*b"]:
        """Measure `distances` by a known relation, as of a positive that negatives copy."""
        return translated_distance(self.geometry, self.first(user), relation, self.first(item))

    def first(self, rows: Float[Array, "*b a"]) -> Float[Array, "*b d"]:
        """Take the first vector of each row, which is translated and compared.

        A user without a row stands at the origin.
        """
        if not rows.shape[-1]:
            return jnp.zeros((*rows.shape[:-1], self.dim), rows.dtype)
        return rows[..., : self.dim]

    # ---------------------------------------------------------------------------------------------
    # Every user with every item.

    def pairwise_distances(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], history: History
    ) -> Float[Array, "u k"]:
        """Measure the `distances` of every user to every item, for items that users share.

        Args:
          history: `rows [u, P, d]` and `mask [u, P]`; an item that is in it is not left out.
        """
        if not self.reads_item:
            translated = self.translated_once(users, items[:1], history)
            return self.geometry.pairwise(translated, self.first(items))
        if self.geometry.is_euclidean:
            return self.euclidean_pairwise(users, items, history)
        return self.general_pairwise(users, items, history)

    def target_distances(
        self,
        users: Float[Array, "u a"],
        items: Float[Array, "k b"],
        history: HistoryIds,
        targets: int,
    ) -> Float[Array, "u t"]:
        """Measure `pairwise_distances` to the first items, each left out of its own history.

        Args:
          history: of each user, by places among the items.
          targets: how many of the items these are.
        """
        places, mask = history
        rows = items[places]
        found = self.pairwise_distances(users, items[:targets], History(rows, mask))
        if not places.shape[1]:
            return found
        # Those that are in the history themselves are few: they are measured again, without.
        others = mask[:, None] & ~jnp.eye(places.shape[1], dtype=bool)[None]
        own = self.distances(users[:, None], rows, History(rows[:, None], others))
        of_row = jnp.arange(len(users))[:, None]
        columns = jnp.where(mask & (places < targets), places, targets)
        return found.at[of_row, columns].set(own, mode="drop")

    def known_of_items(self, items: Float[Array, "k b"], history: HistoryIds) -> Any:
        """Compute what `known_distances` read besides the users' rows, once for all of these.

        For rows of users that are being fitted, while items and histories stay. A model may
        override the two by something faster that gives the same numbers and gradients.
        """
        return history

    def known_distances(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], known: Any
    ) -> Float[Array, "u k"]:
        """Measure `target_distances` to all items, given what `known_of_items` says of these."""
        return self.target_distances(users, items, known, len(items))

    def scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score every user with every item of a tile by minus their distance, for ranking.

        Args:
          catalogue: all item rows, which `histories` index.
          histories: `items [U, P]` and `mask [U, P]`.
        """
        if not self.reads_item:
            return self._scores_of_translated(users, tile, catalogue, histories)
        if self.geometry.is_euclidean:
            return self.euclidean_scores(users, tile, catalogue, histories)
        return self.general_scores(users, tile, catalogue, histories)

    def general_pairwise(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], history: History
    ) -> Float[Array, "u k"]:
        """Measure `pairwise_distances` in any geometry, by definition.

        Some items at a time, and again in the backward pass, so that of the histories of pairs
        `[u, k, P, d]` only a part is held. A model may override this, and the three that follow, by
        something faster that gives the same numbers and gradients. It is not inherited by a class
        that defines `__call__` again.
        """

        @jax.checkpoint
        def of_tile(tile: Array) -> Array:
            pairs = jnp.broadcast_to(tile, (len(users), *tile.shape))
            return self.distances(users[:, None], pairs, history.for_targets())

        floats = len(users) * (1 + history.mask.shape[1]) * self.dim
        return tilewise(of_tile, items, pair_tile(floats))

    def euclidean_pairwise(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], history: History
    ) -> Float[Array, "u k"]:
        """Compute `general_pairwise`, where `D(x, y) = ||x - y||^2` between rows themselves."""
        return self.general_pairwise(users, items, history)

    def general_scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Compute `scores` in any geometry, by definition, some users at a time."""
        floats = (1 + histories.items.shape[1]) * self.dim

        def scores_of_tile(items: Array) -> Array:
            def scores_of_one(user: Array, ids: Array, mask: Array) -> Array:
                history = History(catalogue[ids][None], mask[None])
                return -self.distances(user[None], items, history)

            return blockwise(scores_of_one, (users, *histories), floats * len(items))

        return tilewise(scores_of_tile, tile, min(len(tile), scoring_sizes().items))

    def euclidean_scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Compute `general_scores`, where `D(x, y) = ||x - y||^2` between rows themselves."""
        return self.general_scores(users, tile, catalogue, histories)

    def translated_once(
        self, user: Float[Array, "*#b a"], item: Float[Array, "*#b c"], history: History
    ) -> Float[Array, "*b d"]:
        """Translate users by a relation that is the same for this item as for any."""
        return translate(self.first(user), self(user, item, history))

    def _scores_of_translated(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: HistoryIds,
    ) -> Float[Array, "u t"]:
        """Score users that are translated once. XLA does it once for all tiles, a few at a time."""

        def translated(user: Array, ids: Array, mask: Array) -> Array:
            return self.translated_once(user, tile[0], History(catalogue[ids], mask))

        if self.uses_history:
            floats = histories.items.shape[1] * self.dim
            moved = blockwise(translated, (users, *histories), floats)
        else:
            moved = self.translated_once(users, tile[:1], History.empty(self.first(users)))
        return -self.geometry.pairwise(moved, self.first(tile))

    # ---------------------------------------------------------------------------------------------
    # What a model may add to training.

    def penalty(
        self,
        user: Float[Array, "b 1 u"],
        items: Float[Array, "b k_plus_1 i"],
        distances: Float[Array, "b k_plus_1"],
    ) -> Float[Array, "b"]:
        """Compute what the model adds to the loss of each row of a batch; nothing by default.

        Args:
          items: the positive and the row's own negatives.
          distances: to each of them.
        """
        return jnp.zeros(len(user))

    def features_penalty(
        self, items: Float[Array, "i d"], features: Float[Array, "i f"]
    ) -> Float[Array, ""]:
        """Compute what a model with `uses_features` adds to the loss of each step.

        Once for all items.

        Args:
          items: points of the whole table.
          features: of each item.
        """
        raise NotImplementedError

    def parameter_penalty(self, params: Params) -> Float[Array, ""]:
        """Compute what the module's own parameters add to the loss of a step; nothing by default.

        Once in a step, beside a sum over the batch (`config.loss.reduction`) or a mean.
        """
        return jnp.zeros(())

    def check_devices(self) -> None:
        """Raise InputError where the model cannot be trained on the devices there are."""

    def project(self, params: Params) -> Params:
        """Constrain the module's own parameters after an optimizer step, if it wants to."""
        return params

    # ---------------------------------------------------------------------------------------------
    # What a model shows to `hlr_jax.diagnose`, `hlr_jax.analyse` and `Recommender.explain`.

    def attentions(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b i"], history: History
    ) -> dict[str, Attention]:
        """Compute the attention weights behind the relation, by name; none by default.

        It takes what `__call__` takes, and is not inherited by a class that redefines `__call__`.
        """
        return {}

    def memories(self) -> dict[str, Float[Array, "_ d"]]:
        """Return the memories that the relation is read from, `[M, d]` by name; none by default."""
        return {}

    def slot_weights(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b i"], history: History
    ) -> dict[str, Float[Array, "*b _"]]:
        """Compute how much of each slot is in the relation, by name of the memory; none by default.

        If the names are those of `memories`, weights times slots add up to the relation. It takes
        what `__call__` takes, and is not inherited by a class that redefines `__call__`.
        """
        return {}


def _unchecked(cls: type[Relation], values: Mapping[str, Any]) -> Relation:
    # JAX may build it anywhere, also inside a method of another module, which is not its parent.
    return cls(parent=None, **values)


def apply(model: Relation, params: Params, method: str, *arguments: Any) -> Any:
    """Call a method of a model, as `"distances"`, with the module's own parameters."""
    return model.apply({"params": params}, *arguments, method=method)


def embed(model: Relation, rows: Float[Array, "*b a"], width: int) -> Float[Array, "*b a"]:
    """Map rows of a table to points of the model's geometry, vector by vector.

    Args:
      width: numbers of a row that are its own vectors; what follows stays as it is.
    """
    if type(model.geometry).embed is Geometry.embed:
        return rows
    vectors = rows[..., :width].reshape(*rows.shape[:-1], width // model.dim, model.dim)
    points = model.geometry.embed(vectors).reshape(*rows.shape[:-1], width)
    return jnp.concatenate([points, rows[..., width:]], axis=-1)


def embed_tables(model: Relation, params: Params) -> Params:
    """Map both tables to points; see `embed`."""
    return params | {
        "user": embed(model, params["user"], model.user_width),
        "item": embed(model, params["item"], model.dim),
    }

"""The contract: a model is a relation.

Every model of the family ranks items by `||user + r - item||^2` and differs from the
others only in the vector `r(user, item | history)`. A model is a subclass of `Relation`
that says what `r` is; training, checkpoints, evaluation, ranking and recommendation
follow from that. The embedding tables are not the module's: it is handed rows.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.errors import InputError
from hlr_jax.functional import translated_distance
from hlr_jax.kernels import tiled_scores as tiles

Params = dict[str, Any]


class History(NamedTuple):
    """Item rows of a user's history.

    Attributes:
      rows: `[*b, P, d]`; at a masked place stands any finite row.
      mask: `[*b, P]`; True where a row counts. The target item is never among those.
    """

    rows: Float[Array, "*b p d"]
    mask: Bool[Array, "*#b p"]


class Histories(NamedTuple):
    """Items of users' histories, by id.

    Attributes:
      items: `[*b, P]`; 0 at masked places.
      mask: `[*b, P]`; which places hold an item.
    """

    items: Int[Array, "*b p"]
    mask: Bool[Array, "*b p"]


class Relation(nn.Module):
    """Base of all models. Fields other than `dim` are the options `config.model` takes.

    Attributes:
      dim: `d`, the embedding size.
      uses_history: whether `__call__` reads the history (if not, none is sampled).
      uses_neighbours: whether rows of users and items are handed over as `[.., 2 d]`, followed by
        the mean row of their neighbours in training: of a user's items, of an item's users.
        These means are constants in the gradient.
      uses_features: whether training reads features of items, by `features_penalty`.
    """

    dim: int

    uses_history: ClassVar[bool] = False
    uses_neighbours: ClassVar[bool] = False
    uses_features: ClassVar[bool] = False

    @property
    def user_width(self) -> int:
        """Numbers in a user's row of the table: `d`, or of several vectors one after another.

        The first vector is the one that the relation translates.
        """
        return self.dim

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History | None
    ) -> Float[Array, "*b d"]:
        """The relation `r` that translates each user to each item.

        Args:
          user: `[*b, d]`.
          item: `[*b, d]`; batch axes broadcast against the user's (axes of size 1 stretch).
          history: `rows [*b, P, d]` and `mask [*b, P]`, or None if `uses_history` is False.
        """
        raise NotImplementedError

    def distances(
        self, user: Float[Array, "*#b u"], item: Float[Array, "*#b i"], history: History | None
    ) -> Float[Array, "*b"]:
        """`||user + r - item||^2`; takes the arguments of `__call__`."""
        return self.translated(user, self(user, item, history), item)

    def translated(
        self,
        user: Float[Array, "*#b u"],
        relation: Float[Array, "*#b d"],
        item: Float[Array, "*#b i"],
    ) -> Float[Array, "*b"]:
        """`||user + relation - item||^2`, on the first vector of each row."""
        return translated_distance(user[..., : self.dim], relation, item[..., : self.dim])

    def distances_to_all(
        self, users: Float[Array, "u a"], items: Float[Array, "k b"], history: History | None
    ) -> Float[Array, "u k"]:
        """`distances` of every user to every item, for training with negatives that users share.

        This definition works for any relation and holds `[u, k, d]`. A model may override it by
        something faster that gives the same numbers and gradients.

        Args:
          history: `rows [u, P, d]` and `mask [u, P]`; no item is in it.
        """
        pairs = jnp.broadcast_to(items, (len(users), *items.shape))
        if history is not None:
            history = History(history.rows[:, None], history.mask[:, None])
        return self.distances(users[:, None], pairs, history)

    def penalty(
        self,
        user: Float[Array, "b 1 u"],
        items: Float[Array, "b k_plus_1 i"],
        distances: Float[Array, "b k_plus_1"],
    ) -> Float[Array, "b"] | None:
        """What a model adds to the loss of each row of a batch; None adds nothing.

        Args:
          items: the positive and the row's own negatives.
          distances: to each of them.
        """
        return None

    def features_penalty(
        self,
        items: Float[Array, "i d"],
        features: Float[Array, "i f"],
        project: Callable[[Array], Array],
    ) -> Float[Array, ""]:
        """What a model with `uses_features` adds to the loss of each step, once for all items.

        Args:
          items: the whole table.
          features: of each item.
          project: vectors `[.., d]` to the ball or sphere that item rows are kept in.
        """
        raise NotImplementedError

    def scores(
        self,
        users: Float[Array, "u a"],
        tile: Float[Array, "t b"],
        catalogue: Float[Array, "i b"],
        histories: Histories | None,
    ) -> Float[Array, "u t"]:
        """`-||user + r - item||^2` of every user with every item of a tile, for ranking.

        This definition works for any relation, a user at a time. A model may override it by
        something faster that gives the same numbers.

        Args:
          catalogue: all item rows, which `histories` index.
          histories: `items [U, P]` and `mask [U, P]`; None if `uses_history` is False.
        """

        def scores_of_tile(items: Array) -> Array:
            def scores_of_one(user: Array, history: Histories | None) -> Array:
                rows = None
                if history is not None:
                    rows = History(catalogue[history.items][None], history.mask[None])
                return -self.distances(user[None], items, rows)

            return jax.lax.map(lambda args: scores_of_one(*args), (users, histories))

        return tiles.tilewise(scores_of_tile, tile, min(len(tile), tiles.sizes().items))

    def project(self, params: Params) -> Params:
        """The module's own parameters after an optimizer step, constrained if it wants to."""
        return params


def apply(model: Relation, params: Params, method: str, *arguments: Any) -> Any:
    """What a method of the model, as `"distances"`, returns by these parameters."""
    return model.apply({"params": params}, *arguments, method=method)


def scores(
    model: Relation,
    params: Params,
    users: Float[Array, "u a"],
    tile: Float[Array, "t b"],
    catalogue: Float[Array, "i b"],
    histories: Histories | None,
) -> Float[Array, "u t"]:
    """Scores by these parameters; see `Relation.scores`."""
    found = apply(model, params, "scores", users, tile, catalogue, histories)
    assert isinstance(found, jax.Array)
    return found


_REGISTRY: dict[str, type[Relation]] = {}


def register(name: str) -> Callable[[type[Relation]], type[Relation]]:
    """Class decorator: makes a `Relation` known as `config.model.name = name`.

    Raises:
      ValueError: the name is taken, or an option clashes with another model's option of
        the same name (they share the flag `--config.model.<option>`).
    """

    def add(cls: type[Relation]) -> type[Relation]:
        if name in _REGISTRY:
            raise ValueError(f"a model named {name!r} is registered already")
        known = all_options()
        for option, default in options(cls).items():
            if option in known and type(known[option]) is not type(default):
                raise ValueError(f"{name}.{option} and another model's {option} differ in type")
        _REGISTRY[name] = cls
        return cls

    return add


def names() -> list[str]:
    """The registered models."""
    return sorted(_REGISTRY)


def options(cls: type[Relation]) -> dict[str, Any]:
    """The options of a model and their defaults: its fields, without `dim` and Flax's own."""
    return {
        field.name: field.default
        for field in dataclasses.fields(cls)
        if field.name not in ("dim", "parent", "name")
    }


def all_options() -> dict[str, Any]:
    """The options of all registered models together."""
    return {key: value for cls in _REGISTRY.values() for key, value in options(cls).items()}


def get(name: str) -> type[Relation]:
    """The model registered as `name`.

    Raises:
      InputError: there is none.
    """
    if name not in _REGISTRY:
        raise InputError(f"config.model.name={name!r}: use one of {', '.join(names())}")
    return _REGISTRY[name]


def build(name: str, dim: int, chosen: Mapping[str, Any]) -> Relation:
    """The module registered as `name`, with these options.

    Raises:
      InputError: unknown model or option, or a value out of range.
    """
    cls = get(name)
    for option in chosen:
        if option not in options(cls):
            raise InputError(
                f"config.model.{option}: model {name!r} has no such option; "
                f"it has {', '.join(options(cls)) or 'none'}"
            )
    return cls(dim=dim, **chosen)

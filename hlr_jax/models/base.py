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
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.errors import InputError
from hlr_jax.functional import tiles, translated_distance

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
    """

    dim: int

    uses_history: ClassVar[bool] = False

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

    def scores(
        self,
        users: Float[Array, "u d"],
        tile: Float[Array, "t d"],
        catalogue: Float[Array, "i d"],
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
                relation = self(user[None], items, rows)
                return -translated_distance(user[None], relation, items)

            return jax.lax.map(lambda args: scores_of_one(*args), (users, histories))

        return tiles.tilewise(scores_of_tile, tile, min(len(tile), tiles.sizes().items))

    def project(self, params: Params) -> Params:
        """The module's own parameters after an optimizer step, constrained if it wants to."""
        return params


def relation(
    model: Relation,
    params: Params,
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    history: History | None,
) -> Float[Array, "*b d"]:
    """The relation that a model reads from these parameters; see `Relation.__call__`."""
    found = model.apply({"params": params}, user, item, history)
    assert isinstance(found, jax.Array)
    return found


def scores(
    model: Relation,
    params: Params,
    users: Float[Array, "u d"],
    tile: Float[Array, "t d"],
    catalogue: Float[Array, "i d"],
    histories: Histories | None,
) -> Float[Array, "u t"]:
    """Scores by these parameters; see `Relation.scores`."""
    found = model.apply({"params": params}, users, tile, catalogue, histories, method="scores")
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

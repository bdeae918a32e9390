"""Try the components of other packages on a few numbers, before anything is written.

The library's own are tested.
"""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hlr_jax.config import Config, build
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.losses import Loss, NegativeDistances
from hlr_jax.models.relation import Relation, apply, embed
from hlr_jax.registry import TRACING_ERRORS, Options, explain_tracing, is_own, path_of
from hlr_jax.sampling.histories import UniformChoice
from hlr_jax.sampling.samplers import Examples, Sampler
from hlr_jax.sampling.sources import DeviceInteractions, SamplingSource, TripletSource
from hlr_jax.training.state import Sizes, init_params
from hlr_jax.types import History, PerExampleNegatives, SharedNegatives

# Of a catalogue of which the negatives are all items; a loss may take the closest hundred.
_MANY_ITEMS = 1000


def check(config: Config) -> None:
    """Raise InputError where a component from another package cannot be trained with."""
    model, geometry, loss, sampler = build.build_all(config)
    check_geometry(geometry, config.geometry.name, model.dim)
    check_relation(model, config.model.name, config.sampling.history_length)
    of_users = config.training.batch_of == "users"
    check_sampler(sampler, config.sampling.negatives, "targets" if of_users else "draw")
    count = sampler.num_negatives_of(_MANY_ITEMS)
    check_loss(loss, config.loss.name, max(2, count))


# ---------------------------------------------------------------------------------------------
# What all kinds have in common.


class _Subject(NamedTuple):
    """A class and what names it in the configuration; errors begin with both."""

    cls: type[Options]
    field: str

    def __str__(self) -> str:
        return f"{self.field}: {path_of(self.cls)}"

    def require_method(self, method: str, arguments: Sequence[str], base: type[Options]) -> None:
        """Raise InputError unless the class defines a method with these arguments."""
        remedy = f"define {method}(self, {', '.join(arguments)})"
        found = getattr(self.cls, method)
        if found is getattr(base, method):
            raise InputError(f"{self} has no {method} of its own; {remedy}")
        try:
            inspect.signature(found).bind(None, *arguments)
        except TypeError:
            raise InputError(
                f"{self}.{method} does not take {len(arguments)} arguments; {remedy}"
            ) from None

    def call(self, component: Options, method: str, call: Callable[[], Any]) -> Any:
        """Return what a method computes; raises InputError, which says what it raised and where."""
        try:
            return call()
        except InputError:
            raise
        except TRACING_ERRORS as error:
            what = explain_tracing(component, error)
            raise InputError(f"{self}.{method}: {what}{_place(self.cls, error)}") from error
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            place = _place(self.cls, error)
            raise InputError(f"{self}.{method} raised {what}{place}") from error

    def require_shape(self, what: str, value: Any, shape: tuple[int, ...], remedy: str) -> None:
        """Raise InputError unless this is an array of that shape."""
        if not isinstance(value, jax.Array | np.ndarray | float | int):
            raise InputError(f"{self} returned {what} of type {type(value).__name__}; {remedy}")
        if jnp.shape(value) != shape:
            raise InputError(
                f"{self} returned {what} of shape {jnp.shape(value)}, not {shape}; {remedy}"
            )

    def require_finite(self, what: str, value: Array, when: str) -> None:
        """Raise InputError unless all numbers are finite."""
        if not bool(jnp.isfinite(value).all()):
            raise InputError(f"{self} returned {what} that is not finite {when}")


def _subject(component: Options, field: str, name: str) -> _Subject | None:
    """Name a component from another package; None for the library's own."""
    return None if is_own(component) else _Subject(type(component), f"config.{field}={name!r}")


def _place(cls: type, error: Exception) -> str:
    """Say where in the file of the class an exception was raised."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    frames = [x for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _rows(seed: int, count: int, width: int) -> Array:
    """Make random rows of a table, of which the first is zero."""
    rows = np.random.default_rng(seed).normal(0, 0.4, (count, width))
    rows[0] = 0
    return jnp.asarray(rows, jnp.float32)


# ---------------------------------------------------------------------------------------------
# Losses.


def check_loss(loss: Loss, name: str, num_negatives: int = 2) -> None:
    """Raise InputError where a loss from another package fails, or returns no number for each.

    Args:
      name: in the configuration.
      num_negatives: that a positive is compared with; 2 or more.
    """
    subject = _subject(loss, "loss.name", name)
    if subject is None:
        return
    subject.require_method("__call__", ("positive", "negatives"), Loss)
    found = _loss_and_terms(loss, subject, num_negatives)
    for what, value in zip(("a loss", "num_terms"), found, strict=True):
        subject.require_finite(
            what,
            value,
            "for squared distances from 0 to 4, or where no negative counts; mask what does not "
            "count by jnp.where",
        )


# Compiled once for all numbers of a loss, as in a sweep over them.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _loss_and_terms(loss: Loss, subject: _Subject, num_negatives: int) -> tuple[Array, Array]:
    positive = jnp.array([0.0, 0.5, 4.0])
    values = jnp.resize(jnp.array([0.0, 1.0, 4.0, 0.25, 2.0, 3.0]), (3, num_negatives))
    mask = jnp.array([[True], [True], [False]]) & (jnp.arange(num_negatives) != 1)[None]
    negatives = NegativeDistances(values, mask.at[0].set(True), _MANY_ITEMS)
    terms = subject.call(loss, "num_terms", lambda: loss.num_terms(positive, negatives))
    losses = subject.call(loss, "__call__", lambda: loss(positive, negatives))
    remedy = "return one number for each positive"
    subject.require_shape("a loss", losses, positive.shape, remedy)
    subject.require_shape("num_terms", terms, positive.shape, remedy)
    return losses, terms


# ---------------------------------------------------------------------------------------------
# Geometries.


def check_geometry(geometry: Geometry, name: str, dim: int) -> None:
    """Raise InputError where a geometry from another package fails, or measures no distances.

    Args:
      name: in the configuration.
      dim: the embedding size.
    """
    subject = _subject(geometry, "geometry.name", name)
    if subject is None:
        return
    subject.require_method("distance", ("x", "y"), Geometry)
    found = _distances(geometry, subject, dim)
    for what, value in zip(("a distance", "a pairwise distance"), found, strict=True):
        subject.require_finite(what, value, "for rows of which one is zero, and for equal rows")


@functools.partial(jax.jit, static_argnums=(1, 2))
def _distances(geometry: Geometry, subject: _Subject, dim: int) -> tuple[Array, Array]:
    def of(method: str, *arguments: Any) -> Any:
        return subject.call(geometry, method, lambda: getattr(geometry, method)(*arguments))

    new = of("init", jax.random.key(0), (2, dim))
    subject.require_shape("new rows", new, (2, dim), "return rows of the given shape from init")
    rows = jnp.concatenate([_rows(0, 3, dim), new])
    for method in ("project", "embed"):
        rows = of(method, rows)
        subject.require_shape(f"rows from {method}", rows, (5, dim), "return as many as are given")
    x, y = rows[:2], rows[1:]
    remedy = "sum over the last axis alone, and let the others broadcast"
    distances = of("distance", x[:, None], y[None])
    subject.require_shape("distances", distances, (2, 4), remedy)
    pairwise = of("pairwise", x, y)
    subject.require_shape("pairwise distances", pairwise, (2, 4), remedy)
    return distances, pairwise


# ---------------------------------------------------------------------------------------------
# Relations.


def check_relation(model: Relation, name: str, history_length: int) -> None:
    """Raise InputError where a relation from another package fails, or returns no vectors.

    Args:
      name: in the configuration.
      history_length: the most items of a history that it reads.
    """
    subject = _subject(model, "model.name", name)
    if subject is None:
        return
    subject.require_method("__call__", ("user", "item", "history"), Relation)
    relation = _relation(model, subject, history_length if model.uses_history else 0)
    if not model.uses_history and not jnp.array_equal(
        relation, _relation(model, subject, history_length), equal_nan=True
    ):
        raise InputError(
            f"{subject} reads the history, which stays empty; write "
            "uses_history: ClassVar[bool] = True"
        )
    remedy = "divide by no sum or length that may be 0 (use jnp.where)"
    subject.require_finite("a relation", relation, f"for rows of which one is zero; {remedy}")


@functools.partial(jax.jit, static_argnums=(1, 2))
def _relation(model: Relation, subject: _Subject, places: int) -> Array:
    dim = model.dim
    users, items = 2, 4 if dim == 3 else 3
    extra = dim if model.uses_neighbours else 0
    key = jax.random.key(0)
    sizes = Sizes(users, items)
    # Which calls the model, as Flax does to find its parameters.
    params = subject.call(model, "__call__", lambda: init_params(key, model, sizes))
    user = embed(model, _rows(0, users, model.user_width + extra), model.user_width)
    item = embed(model, _rows(1, items, dim + extra), dim)
    rows = item[jnp.arange(users * places) % items].reshape(users, places, dim + extra)
    # An empty history, of the zero row, and a full one.
    history = History(rows, jnp.arange(users)[:, None] * jnp.ones((1, places), int) > 0)

    def of(*arguments: Any) -> Any:
        call = functools.partial(apply, model, params["relation"], "__call__", *arguments)
        return subject.call(model, "__call__", call)

    every = of(user[:, None], item[None], history.for_targets())
    _require_vectors(subject, every, (users, items, dim))
    one = of(user[1], item[1], History(rows[1], history.mask[1]))
    _require_vectors(subject, one, (dim,))
    return jnp.concatenate([every.reshape(-1), one.reshape(-1)])


def _require_vectors(subject: _Subject, relation: Any, shape: tuple[int, ...]) -> None:
    """Raise InputError unless a relation can be added to users and items of this shape."""
    found, remedy = jnp.shape(relation), "return a vector of d numbers for each user and item"
    ends = found[-1:] == shape[-1:] and len(found) <= len(shape)
    axes = zip(found[::-1], shape[::-1], strict=False)
    fits = ends and all(size in (1, wanted) for size, wanted in axes)
    subject.require_shape("a relation", relation, found if fits else shape, remedy)


# ---------------------------------------------------------------------------------------------
# Samplers.


def check_sampler(sampler: Sampler, name: str, method: str = "draw") -> None:
    """Raise InputError where a sampler from another package fails, or returns no negatives.

    Args:
      name: in the configuration.
      method: that training calls: `draw`, or `targets` for batches of users.
    """
    subject = _subject(sampler, "sampling.negatives", name)
    if subject is None:
        return
    arguments = ("key", "source") if method == "targets" else ("examples", "source")
    subject.require_method(method, arguments, Sampler)
    # Whole numbers may say how many of its items are drawn.
    sizes = [value for value in vars(sampler).values() if type(value) is int and value > 0]
    users, items = 4, min(32 + sum(sizes), 100_000)
    held = [np.arange(user, user + 3) for user in range(users)]
    train = Interactions.from_pairs(
        np.repeat(np.arange(users), 3), np.concatenate(held), num_users=users, num_items=items
    )
    popularity = np.bincount(train.items, minlength=items)
    prepared = subject.call(sampler, "prepare", lambda: sampler.prepare(popularity, train))
    history = DeviceInteractions.of(train)
    base = SamplingSource(history, history, UniformChoice(), prepared, items)
    if method == "targets":
        _targets(sampler, base, subject)
    else:
        _draw(sampler, TripletSource.of_training(base, train), subject)


@functools.partial(jax.jit, static_argnums=2)
def _targets(sampler: Sampler, source: SamplingSource, subject: _Subject) -> Any:
    key = jax.random.key(0)
    found = subject.call(sampler, "targets", lambda: sampler.targets(key, source))
    subject.require_shape("targets", found, (jnp.size(found),), "return items [N]")
    if found.dtype != jnp.int32:
        raise InputError(f"{subject} returned targets of {found.dtype}; use int32")
    return found


@functools.partial(jax.jit, static_argnums=2)
def _draw(sampler: Sampler, source: TripletSource, subject: _Subject) -> Any:
    count = len(source.users)
    valid, numbers = jnp.arange(count) < count - 1, jnp.arange(count, dtype=jnp.uint32)
    examples = Examples(jax.random.key(0), 0, source.users, source.items, valid, numbers)
    drawn = subject.call(sampler, "draw", lambda: sampler.draw(examples, source))
    wanted = SharedNegatives if sampler.is_shared else PerExampleNegatives
    if type(drawn) is not wanted:
        found = "an array" if isinstance(drawn, jax.Array) else type(drawn).__name__
        raise InputError(
            f"{subject}.draw returned {found}; with is_shared={sampler.is_shared} "
            f"return {wanted.__name__}(items, mask)"
        )
    remedy = f"return items {'[N]' if sampler.is_shared else '[B, K]'} and a mask for each positive"
    items, mask = drawn
    size = jnp.shape(items)[-1:]
    subject.require_shape("items", items, size if sampler.is_shared else (count, *size), remedy)
    subject.require_shape("a mask", mask, (count, *size), remedy)
    for what, value, kind in (("items", items, jnp.integer), ("a mask", mask, jnp.bool_)):
        if not jnp.issubdtype(value.dtype, kind):
            raise InputError(f"{subject} returned {what} of {value.dtype}; use {kind.__name__}")
    return drawn

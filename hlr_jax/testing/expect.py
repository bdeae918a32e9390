"""Compare numbers, and say what does not hold of what."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from hlr_jax.registry import TRACING_ERRORS, Options, explain_tracing, is_number, path_of

# Of fields that Flax adds to a module.
_OF_FLAX = ("parent", "name")


class Expect:
    """Requires things of a component; AssertionError names the component and what fails.

    Attributes:
      component: what is checked.
      subject: how it is called.
    """

    def __init__(self, component: Options, context: str = "") -> None:
        self.component = component
        options = ", ".join(f"{name}={value!r}" for name, value in _options(component).items())
        self.subject = f"{path_of(type(component))}({options}){context}"

    @contextlib.contextmanager
    def traceable(self) -> Iterator[None]:
        """Require that the component can be compiled: it needs no value of an array in Python."""
        try:
            yield
        except TRACING_ERRORS as error:
            raise AssertionError(
                f"{self.subject}: {explain_tracing(self.component, error)}"
            ) from error

    def that(self, condition: Any, what: str) -> None:
        """Require a condition, which `what` says in words."""
        if not condition:
            raise AssertionError(f"{self.subject}: {what}")

    def shape(self, value: Any, shape: tuple[int, ...], what: str) -> None:
        """Require this shape, and numbers of single precision (or double, where that is on)."""
        found = np.shape(value)
        self.that(found == shape, f"{what} has shape {found}, not {shape}")
        kind = np.asarray(value).dtype
        wanted = np.dtype(jax.dtypes.canonicalize_dtype(np.float64))
        self.that(kind in (wanted, np.float32), f"{what} has type {kind}, not {wanted}")

    def finite(self, tree: Any, what: str) -> None:
        """Require that every number of a tree is finite."""
        for x in jax.tree.leaves(tree):
            bad = int(np.count_nonzero(~np.isfinite(np.asarray(x))))
            self.that(not bad, f"{what}: {bad} of {np.size(x)} numbers are not finite")

    def close(self, found: Any, wanted: Any, what: str, bound: float = 1e-5) -> None:
        """Require that no number differs by more than `bound` times the largest of its array."""
        trees = [str(jax.tree.structure(x)) for x in (found, wanted)]
        self.that(trees[0] == trees[1], f"{what}: found {trees[0]}, not {trees[1]}")
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            self._close(np.asarray(x, np.float64), np.asarray(y, np.float64), what, bound)

    def _close(self, found: np.ndarray, wanted: np.ndarray, what: str, bound: float) -> None:
        self.that(found.shape == wanted.shape, f"{what}: {found.shape} against {wanted.shape}")
        if not found.size:
            return
        self.finite(found, what)
        error = np.abs(found - wanted)
        at = np.unravel_index(int(error.argmax()), error.shape)
        scale = max(1e-3, float(np.abs(wanted).max()))
        place = list(map(int, at))
        self.that(
            error[at] <= bound * scale, f"{what}: {found[at]:.9g}, not {wanted[at]:.9g}, at {place}"
        )


def with_option(component: Any, name: str, value: Any) -> Any:
    """Build the same component with another value of an option, which may be an array."""
    return type(component)(**_options(component) | {name: value})


def instance(component: Any, **fixed: Any) -> Any:
    """Build a component from its class, by its default options, or take the instance given.

    Raises:
      InputError: an option is out of range.
    """
    made = component(**fixed) if isinstance(component, type) else component
    made.check()
    return made


def check_traced(expect: Expect, component: Any, call: Callable[[Any], Any]) -> None:
    """Require that other values of float options need no other program, and are taken.

    Args:
      call: what the component computes; traced with the component as argument, and also with its
        options as numbers of Python.
    """
    numbers = {name: 0.9 * value if value else 0.1 for name, value in _numbers(component)}
    if not numbers:
        return
    traces = 0

    def program(component: Any) -> Any:
        nonlocal traces
        traces += 1
        return call(component)

    compiled = jax.jit(program)
    others = {name: with_option(component, name, value) for name, value in numbers.items()}
    every = component
    for name, value in numbers.items():
        every = with_option(every, name, value)
    compiled(component)
    for name, other in others.items():
        compiled(other)
        expect.that(traces == 1, f"option {name!r}: another value compiled another program")
    found = compiled(every)
    fixed = jax.jit(lambda: call(every))()
    # What is not finite is found elsewhere.
    found, fixed = (jax.tree.map(lambda x: np.nan_to_num(x, nan=-1), y) for y in (found, fixed))
    expect.close(found, fixed, f"options {', '.join(numbers)} as arguments of jit")


def check_gradient(
    expect: Expect, function: Callable[[Any], Any], at: Any, what: str, gradient: Any
) -> None:
    """Require that a gradient is that of finite differences, in double precision.

    Args:
      function: a number of a tree of arrays, compiled.
      at: the tree.
      gradient: of the function there.
    """
    point = jax.tree.map(lambda x: np.asarray(x, np.float64), at)
    rng, step = np.random.default_rng(11), 1e-6
    for _ in range(3):
        along = jax.tree.map(lambda x: rng.normal(size=x.shape), point)
        above, below = (
            float(function(jax.tree.map(lambda x, v, sign=sign: x + sign * step * v, point, along)))
            for sign in (1.0, -1.0)
        )
        products = jax.tree.map(lambda g, v: float(np.sum(np.asarray(g) * v)), gradient, along)
        found, wanted = sum(jax.tree.leaves(products)), (above - below) / (2 * step)
        sizes = jax.tree.map(lambda g, v: float(np.abs(np.asarray(g) * v).sum()), gradient, along)
        scale = max(1e-3, sum(jax.tree.leaves(sizes)))
        expect.that(
            abs(found - wanted) <= 1e-5 * scale,
            f"the gradient of {what} along a random direction is {found:.9g}, by finite "
            f"differences {wanted:.9g}",
        )


def random_rows(seed: int, *shape: int, scale: float = 0.4) -> np.ndarray:
    """Random rows, most of them within the unit ball."""
    return np.random.default_rng(seed).normal(0, scale, shape)


def as_arrays(values: ArrayLike) -> jax.Array:
    """Numbers in the precision of the moment."""
    return jax.numpy.asarray(values, jax.dtypes.canonicalize_dtype(np.float64))


def _options(component: Any) -> dict[str, Any]:
    fields = [f.name for f in dataclasses.fields(component) if f.name not in _OF_FLAX]
    return {name: getattr(component, name) for name in fields}


def _numbers(component: Any) -> Iterator[tuple[str, float]]:
    """Names and values of traced options."""
    for field in dataclasses.fields(component):
        if field.name not in _OF_FLAX and is_number(type(component), field):
            yield field.name, getattr(component, field.name)

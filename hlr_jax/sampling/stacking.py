"""Give the sources of several devices equal shapes, so that they stack along an axis of devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from hlr_jax.sampling.sources import DeviceInteractions


def sizes(trees: Sequence[Any]) -> list[int]:
    """List the longest of each array of these trees, then their longest rows of interactions."""
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    longest = zip(*map(_longest, trees), strict=True)
    return [max(len(x) if x.ndim else 1 for x in xs) for xs in leaves] + [*map(max, longest)]


def equalize(trees: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """Fill the arrays of all trees up to these sizes."""

    @once
    def filled(x: Any, size: int) -> np.ndarray:
        # Offsets go on at their last value: users without interactions.
        x, missing = np.asarray(x), max(size, 1) - len(x) if x.ndim else 0
        return np.pad(x, (0, missing), mode="edge" if len(x) else "constant") if missing else x

    def equal(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        tree = jax.tree.unflatten(structure, map(filled, leaves, sizes))
        longest = iter(sizes[len(leaves) :])
        return jax.tree.map(
            lambda x: x.replace(longest=next(longest)) if isinstance(x, DeviceInteractions) else x,
            tree,
            is_leaf=lambda x: isinstance(x, DeviceInteractions),
        )

    return [equal(tree) for tree in trees]


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function return the same result for the same objects.

    A source has some arrays twice; devices need not.
    """
    known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def remembered(*objects: Any) -> Any:
        key = tuple(x if isinstance(x, int) else id(x) for x in objects)
        if key not in known:
            known[key] = (objects, function(*objects))  # which keeps the objects, and their ids
        return known[key][1]

    return remembered


def _longest(tree: Any) -> list[int]:
    nodes = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, DeviceInteractions))
    return [x.longest for x in nodes if isinstance(x, DeviceInteractions)]

"""Gradients by central differences, Adam as TensorFlow 1 has it, weight decay by frequency."""

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, Params, as_array
from oracles.distances import project

# Of Adam: decay rates of its moments, and what is added to the root.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def numerical_gradient(
    f: Callable[[Params], float], params: Mapping[str, ArrayLike], step: float = 1e-5
) -> Params:
    """``(f(x + step e) - f(x - step e)) / (2 step)`` for every entry of every array.

    The truncation error is of the order of ``step^2`` and the rounding error of the order of
    ``1e-16 |f| / step``: both near ``1e-9`` for the losses of small batches, provided that no
    hinge changes sign within the step.
    """
    point = {name: as_array(value).copy() for name, value in params.items()}
    gradient = {name: np.zeros_like(value) for name, value in point.items()}
    for name, value in point.items():
        for index in np.ndindex(value.shape):
            centre = float(value[index])
            value[index] = centre + step
            above = f(point)
            value[index] = centre - step
            below = f(point)
            value[index] = centre
            gradient[name][index] = (above - below) / (2.0 * step)
    return gradient


def adam_steps_dense(
    gradient_fn: Callable[[Params], Params],
    params: Mapping[str, ArrayLike],
    steps: int,
    learning_rate: float,
    radius: float | None = 1.0,
    projected: Collection[str] = ("user", "item"),
) -> list[Params]:
    """Parameters after each step of TF1's dense Adam, each step followed by the projection.

    ``lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)``, ``m <- beta1 m + (1 - beta1) g``,
    ``v <- beta2 v + (1 - beta2) g^2``, ``x <- x - lr_t m / (sqrt(v) + epsilon)``: the formulation
    before section 2.1 of Kingma and Ba (2015), with epsilon outside the bias correction. Both
    moments decay and every row moves, also the rows that the batch does not use.
    """
    point = {name: as_array(value).copy() for name, value in params.items()}
    first = {name: np.zeros_like(value) for name, value in point.items()}
    second = {name: np.zeros_like(value) for name, value in point.items()}
    trajectory: list[Params] = []
    for t in range(1, steps + 1):
        gradient = gradient_fn(point)
        rate = learning_rate * math.sqrt(1.0 - BETA2**t) / (1.0 - BETA1**t)
        after: Params = {}
        for name, value in point.items():
            first[name] = BETA1 * first[name] + (1.0 - BETA1) * gradient[name]
            second[name] = BETA2 * second[name] + (1.0 - BETA2) * gradient[name] ** 2
            after[name] = value - rate * first[name] / (np.sqrt(second[name]) + EPSILON)
            if radius is not None and name in projected:
                after[name] = project(after[name], radius)
        point = after
        trajectory.append(point)
    return trajectory


def decay_factors(counts: ArrayLike, exponent: float) -> Array:
    """``(n / mean n)^exponent`` of each row with ``n`` interactions; 1 where ``n = 0``.

    The mean is over the rows with interactions: iALS's ``lambda n^nu`` (arXiv 2110.14037), scaled
    so that a row of average frequency decays by ``lambda``.
    """
    some = [float(n) for n in np.asarray(counts) if n > 0]
    mean = sum(some) / len(some)
    return np.array([(float(n) / mean) ** exponent if n > 0 else 1.0 for n in np.asarray(counts)])

"""Arrays of the oracles, all of them float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Params = dict[str, Array]


def as_array(values: Any) -> Array:
    """The values as float64."""
    return np.asarray(values, dtype=np.float64)


def reduced(total: float, terms: float, reduction: str) -> float:
    """The sum itself, or divided by its number of terms (by 1 where there is none)."""
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / max(terms, 1)
    raise ValueError(f"unknown reduction {reduction!r}")

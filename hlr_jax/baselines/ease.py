"""Solve for the weights of EASE (Steck, WWW 2019)."""

import os

import numpy as np
import scipy.linalg.lapack
from jaxtyping import Float

from hlr_jax.baselines.scoring import as_matrix
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError


def ease_weights(train: Interactions, regularization: float) -> Float[np.ndarray, "I I"]:
    """Solve for the B with zero diagonal that minimises `||X - X B||² + regularization ||B||²`.

    With `P = (X'X + regularization I)^-1` it is `B_ij = -P_ij / P_jj` off the diagonal (Steck,
    WWW 2019, eq. 8).

    Raises:
      InputError: the items are too many for their matrices to fit into memory.
      DivergedError: the Gram matrix is singular to rounding.
    """
    # One matrix, which is inverted in place, and the weights in single precision.
    needed, memory = (8 + 4) * train.num_items**2, _memory()
    if needed > memory:
        raise InputError(
            f"EASE inverts a matrix of {train.num_items} x {train.num_items} items, which takes "
            f"{needed / 2**30:.0f} GiB of the {memory / 2**30:.0f} GiB there are; raise "
            "config.data.core to keep fewer items, or take ials"
        )
    matrix = as_matrix(train).astype(np.float64)
    gram = (matrix.T @ matrix).toarray(order="C")
    gram[np.diag_indices_from(gram)] += regularization
    # By Cholesky, whose routines take columns one after the other: the transpose is no copy.
    factor, failed = scipy.linalg.lapack.dpotrf(gram.T, lower=True, clean=False, overwrite_a=True)
    if failed:
        raise DivergedError(f"EASE: the Gram matrix plus {regularization} is singular")
    lower, _ = scipy.linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    weights = lower.T
    for item in range(train.num_items):
        weights[item + 1 :, item] = weights[item, item + 1 :]
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _memory() -> int:
    """Return the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

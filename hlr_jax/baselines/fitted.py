"""What a fitted baseline consists of, and how it scores: plain arrays, which can be saved."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from hlr_jax.errors import InputError

_SPARSE = ("data", "indices", "indptr")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted baseline; its fields are arrays and numbers.

    Attributes:
      ranks_untrained_users: whether it scores for users by their history alone.
    """

    ranks_untrained_users: ClassVar[bool] = True

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        """Score all items; larger is better.

        Args:
          users: rows of the training interactions.
          history: `[u, I]` zeros and ones, what they have at the time of ranking.
        """
        raise NotImplementedError

    def for_new_users(self, history: scipy.sparse.csr_matrix) -> Float[np.ndarray, "u I"]:
        """Score all items for users of whom nothing but their history is known."""
        return self(np.zeros(history.shape[0], np.int32), history)

    def similarities(self, items: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n I"]:
        """Tell how alike each of some items is to all.

        Raises:
          InputError: it does not compare items.
        """
        raise InputError("this baseline does not compare items; use another, as item_knn")

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what it consists of: arrays and numbers by name, for `restored`."""
        arrays: dict[str, np.ndarray] = {}
        numbers: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if scipy.sparse.issparse(value):
                arrays |= {f"{field.name}.{part}": getattr(value, part) for part in _SPARSE}
                numbers[f"{field.name}.shape"] = list(value.shape)
            elif isinstance(value, np.ndarray):
                arrays[field.name] = value
            else:
                numbers[field.name] = value
        return arrays, numbers


@dataclasses.dataclass(frozen=True)
class ItemScores(Fitted):
    """Gives all users the same scores."""

    scores: Float[np.ndarray, "I"]

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return np.broadcast_to(self.scores, (len(users), len(self.scores)))


@dataclasses.dataclass(frozen=True)
class ItemWeights(Fitted):
    """Scores `score(u, j) = sum of weights[i, j] over the items i of the history of u`."""

    # [I, I], dense or sparse.
    weights: np.ndarray | scipy.sparse.csr_matrix

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        scores = history @ self.weights
        return scores.toarray() if scipy.sparse.issparse(scores) else scores

    def similarities(self, items: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n I"]:
        """Take the weights of their histories of one item."""
        rows = self.weights[items]
        return rows.toarray() if scipy.sparse.issparse(rows) else rows


@dataclasses.dataclass(frozen=True)
class Factors(Fitted):
    """Scores `score(u, i) = user[u] . item[i]`, whatever the history."""

    user: Float[np.ndarray, "U d"]
    item: Float[np.ndarray, "I d"]

    ranks_untrained_users: ClassVar[bool] = False

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        return self.user[users] @ self.item.T

    def for_new_users(self, history: scipy.sparse.csr_matrix) -> Float[np.ndarray, "u I"]:
        raise InputError("this baseline has no vectors of new users; fit it again with them")

    def similarities(self, items: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n I"]:
        """Compute cosines of their vectors."""
        lengths = np.linalg.norm(self.item, axis=1, keepdims=True)
        unit = self.item / np.where(lengths > 0, lengths, 1)
        return unit[items] @ unit.T


@dataclasses.dataclass(frozen=True)
class FoldedInFactors(Factors):
    """Scores as `Factors` does, with vectors of untrained users solved for from their history.

    With `n` items of vectors `q` in the history and `G` the sum of `q q^T` over all items, a
    vector `p` solves `(all_weight G + own_weight sum q q^T + (ridge + ridge_per_item n) I) p =
    target sum q`: Hu, Koren and Volinsky, ICDM 2008, eq. 4, and Rendle et al., RecSys 2022, eq. 4.

    Attributes:
      is_trained: whose vectors in `user` are trained.
    """

    is_trained: Bool[np.ndarray, "U"]
    all_weight: float
    own_weight: float
    target: float
    ridge: float
    ridge_per_item: float = 0.0

    ranks_untrained_users: ClassVar[bool] = True

    def __call__(
        self, users: Int[np.ndarray, "u"], history: scipy.sparse.csr_matrix
    ) -> Float[np.ndarray, "u I"]:
        vectors = self.user[users]
        untrained = np.flatnonzero(~self.is_trained[users])
        if untrained.size:
            vectors[untrained] = self.solve(history[untrained])
        return vectors @ self.item.T

    def for_new_users(self, history: scipy.sparse.csr_matrix) -> Float[np.ndarray, "u I"]:
        return self.solve(history) @ self.item.T

    def solve(self, history: scipy.sparse.csr_matrix) -> Float[np.ndarray, "n d"]:
        """Solve for the vectors of users with these histories `[n, I]`."""
        item = self.item.astype(np.float64)
        gram, unit = self.all_weight * (item.T @ item), np.eye(item.shape[1])
        vectors = np.zeros((history.shape[0], item.shape[1]))
        for row, vector in enumerate(vectors):
            own = item[history.indices[history.indptr[row] : history.indptr[row + 1]]]
            ridge = self.ridge + self.ridge_per_item * len(own)
            weights = gram + self.own_weight * (own.T @ own) + ridge * unit
            vector[:] = np.linalg.solve(weights, self.target * own.sum(0))
        return vectors.astype(np.float32)


_KINDS = {kind.__name__: kind for kind in (ItemScores, ItemWeights, Factors, FoldedInFactors)}


def restored(kind: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]) -> Fitted:
    """Build a fitted baseline of what `Fitted.state` gave.

    Raises:
      KeyError: there is no such kind.
      TypeError, ValueError: parts are missing or do not fit.
    """
    values: dict[str, Any] = {name: array for name, array in arrays.items() if "." not in name}
    values |= {name: number for name, number in numbers.items() if "." not in name}
    for name in {name.partition(".")[0] for name in arrays if "." in name}:
        parts = tuple(arrays[f"{name}.{part}"] for part in _SPARSE)
        values[name] = scipy.sparse.csr_matrix(parts, tuple(numbers[f"{name}.shape"]))
    return _KINDS[kind](**values)

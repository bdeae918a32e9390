"""The baselines: their hyperparameters, the ranges to tune these in, and how they are fitted."""

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from hlr_jax.baselines.scoring import (
    Factors,
    FoldedInFactors,
    ItemScores,
    ItemWeights,
    Scorer,
    as_matrix,
)
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.tuning.search_space import Choice, Range


@dataclasses.dataclass(frozen=True)
class Method:
    """A baseline; its fields are its hyperparameters.

    Raises:
      InputError: a number is not finite and above 0, or a text is not among its choices.
    """

    # Where tuning looks for each hyperparameter.
    space: ClassVar[Mapping[str, Range | Choice]] = {}
    # Whether it ranks for users without training interactions, from what is given of them.
    ranks_untrained_users: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            where = self.space[name]
            if isinstance(where, Choice):
                if value not in where.values:
                    choices = ", ".join(map(str, where.values))
                    raise InputError(f"{name}={value!r}: use one of {choices}")
            elif not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value!r}: use a number above 0")

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        """Fit the training interactions; the same seed gives the same scores.

        Raises:
          InputError: a package is not installed, or the data are too large.
          DivergedError: what was fitted is not finite.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MostPopular(Method):
    """An item's score is the number of its training interactions."""

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        return ItemScores(train.popularity.astype(np.float32))  # exact up to 2^24


@dataclasses.dataclass(frozen=True)
class Ease(Method):
    """EASE: the ridge regression of every item on all others (Steck, WWW 2019)."""

    # λ of the paper.
    regularization: float = 300.0

    space: ClassVar[Mapping[str, Range | Choice]] = {"regularization": Range(1.0, 1e4, log=True)}

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        return ItemWeights(ease_weights(train, self.regularization).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class IALS(Method):
    """Implicit ALS (Hu, Koren and Volinsky, ICDM 2008), by the library `implicit`.

    With `x_ui` in {0, 1} it minimises `sum (1 + (alpha - 1) x_ui) (x_ui - p_u . q_i)²` over all
    users and items, plus `regularization` times the squared norms. Users are ranked with the
    vectors that training gave them, and those it had nothing of with what minimises the same, given
    their history.
    """

    factors: int = 64
    regularization: float = 20.0
    alpha: float = 2.0
    iterations: int = 30

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Range(32, 256, log=True),
        "regularization": Range(1e-3, 1e2, log=True),
        # Below 1, items that a user has would weigh less than the others.
        "alpha": Range(1.0, 20.0, log=True),
        "iterations": Range(10, 30),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        with _implicit():
            from implicit.cpu.als import AlternatingLeastSquares

            model = AlternatingLeastSquares(**dataclasses.asdict(self), random_state=seed)
            model.fit(as_matrix(train), show_progress=False)
        return FoldedInFactors(
            *(model.user_factors, model.item_factors, train.counts > 0),
            *(self.alpha, self.regularization),
        )


@dataclasses.dataclass(frozen=True)
class BPR(Method):
    """Matrix factorisation with the BPR loss (Rendle et al., UAI 2009), by `implicit`."""

    factors: int = 64
    learning_rate: float = 0.01
    regularization: float = 0.003
    iterations: int = 50

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Range(16, 256, log=True),
        "learning_rate": Range(1e-3, 0.1, log=True),
        "regularization": Range(1e-4, 0.1, log=True),
        "iterations": Range(20, 200, log=True),
    }
    ranks_untrained_users: ClassVar[bool] = False

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        with _implicit():
            from implicit.cpu.bpr import BayesianPersonalizedRanking

            # Several threads write to the same rows, with another outcome each time.
            model = BayesianPersonalizedRanking(
                **dataclasses.asdict(self), random_state=seed, num_threads=1
            )
            model.fit(as_matrix(train), show_progress=False)
        return Factors(model.user_factors, model.item_factors)


@dataclasses.dataclass(frozen=True)
class ItemKNN(Method):
    """Recommend neighbours of the items in the history, by `implicit`.

    Items are compared by the cosine of their columns of the matrix of interactions, which are
    weighted by 1 (`cosine`), by TF-IDF, or by BM25 (K1=1.2, B=.75; here by the product of columns,
    not their cosine). Each item has `neighbours` similar ones, itself among them.
    """

    weighting: str = "bm25"
    neighbours: int = 200

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "weighting": Choice(("cosine", "tfidf", "bm25")),
        "neighbours": Range(5, 1000, log=True),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Scorer:
        with _implicit(), warnings.catch_warnings():
            from implicit import nearest_neighbours
            from implicit.utils import ParameterWarning

            # It warns of the format of its own intermediate matrix.
            warnings.simplefilter("ignore", ParameterWarning)

            recommender = {
                "cosine": nearest_neighbours.CosineRecommender,
                "tfidf": nearest_neighbours.TFIDFRecommender,
                "bm25": nearest_neighbours.BM25Recommender,
            }[self.weighting]
            model = recommender(K=self.neighbours)
            model.fit(as_matrix(train), show_progress=False)
        return ItemWeights(model.similarity)


METHODS: Mapping[str, type[Method]] = {
    "most_popular": MostPopular,
    "ease": Ease,
    "ials": IALS,
    "bpr": BPR,
    "item_knn": ItemKNN,
}


def ease_weights(train: Interactions, regularization: float) -> Float[np.ndarray, "I I"]:
    """Solve for the B with zero diagonal that minimises `||X - X B||² + regularization ||B||²`.

    With `P = (X'X + regularization I)^-1` it is `B_ij = -P_ij / P_jj` off the diagonal (Steck,
    WWW 2019, eq. 8).

    Raises:
      InputError: the items are too many for their matrices to fit into memory.
    """
    # The Gram matrix, its inverse, and a copy that the inversion makes.
    needed, memory = 3 * 8 * train.num_items**2, _memory()
    if needed > memory:
        raise InputError(
            f"EASE inverts a matrix of {train.num_items} x {train.num_items} items, which takes "
            f"{needed / 2**30:.0f} GiB of the {memory / 2**30:.0f} GiB there are; raise "
            "config.data.core to keep fewer items, or take ials"
        )
    matrix = as_matrix(train).astype(np.float64)
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices_from(gram)] += regularization
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _memory() -> int:
    """Return the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def _implicit() -> Iterator[None]:
    """Use `implicit` with a single-threaded BLAS, and raise its errors as ours.

    It has threads of its own, and warns of a BLAS with threads, which would slow both down.
    """
    try:
        import threadpoolctl
        from implicit.recommender_base import ModelFitError
    except ImportError:
        raise InputError(
            "the package implicit is not installed; pip install 'hlr_jax[baselines]'"
        ) from None
    with threadpoolctl.threadpool_limits(1, "blas"):
        try:
            yield
        except ModelFitError as error:
            raise DivergedError(f"implicit: {error}") from None


def parse(method: str, settings: list[str], flag: str = "--set") -> dict[str, Any]:
    """Read hyperparameters of a method from texts `name=value`.

    Raises:
      InputError: there is no such hyperparameter, or the value is of another type.
    """
    types = {field.name: field.type for field in dataclasses.fields(METHODS[method])}
    values = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        kind = types.get(name)
        if kind is None:
            known = ", ".join(types) or "no hyperparameters"
            raise InputError(f"{flag}={setting}: {method} has {known}")
        assert isinstance(kind, type)
        try:
            values[name] = kind(text)
        except ValueError:
            raise InputError(f"{flag}={setting}: expected {kind.__name__}") from None
    return values

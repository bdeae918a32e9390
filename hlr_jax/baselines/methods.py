"""The baselines: their hyperparameters, the ranges to tune these in, and how they are fitted."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from hlr_jax.baselines.ease import ease_weights
from hlr_jax.baselines.fitted import Factors, Fitted, FoldedInFactors, ItemScores, ItemWeights
from hlr_jax.baselines.packages import implicit_package, irspack_package
from hlr_jax.baselines.scoring import as_matrix
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.tuning.search_space import Choice, Range


@dataclasses.dataclass(frozen=True)
class Method:
    """A baseline; its fields are its hyperparameters.

    Raises:
      InputError: a number is not finite and above 0 (or 0, where its range begins there), or a
        text is not among its choices.
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
            elif not (math.isfinite(value) and (value > 0 or value == where.low)):
                least = "0 or a number above it" if where.low == 0 else "a number above 0"
                raise InputError(f"{name}={value!r}: use {least}")

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        """Fit the training interactions; the same seed gives the same scores.

        Raises:
          InputError: a package is not installed, or the data are too large.
          DivergedError: what was fitted is not finite.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MostPopular(Method):
    """An item's score is the number of its training interactions."""

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        return ItemScores(train.popularity.astype(np.float32))  # exact up to 2^24


@dataclasses.dataclass(frozen=True)
class Ease(Method):
    """EASE: the ridge regression of every item on all others (Steck, WWW 2019)."""

    # λ of the paper, on the diagonal of the items' Gram matrix.
    regularization: float = 300.0

    space: ClassVar[Mapping[str, Range | Choice]] = {"regularization": Range(1.0, 1e4, log=True)}

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        return ItemWeights(ease_weights(train, self.regularization).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class IALS(Method):
    """Implicit ALS (Hu, Koren and Volinsky, ICDM 2008), by the library `implicit`.

    With `x_ui` in {0, 1} it minimises `sum (1 + (alpha - 1) x_ui) (x_ui - p_u . q_i)²` over all
    users and items, plus `regularization` times the squared norms. Users are ranked with the
    vectors that training gave them, and those it had nothing of with what minimises the same, given
    their history.
    """

    # Length of the vectors of users and items.
    factors: int = 64
    # Factor of the squared norms.
    regularization: float = 20.0
    # Weight of an interaction, where that of none is 1.
    alpha: float = 2.0
    # Rounds over all users and items.
    iterations: int = 30

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Range(32, 256, log=True),
        "regularization": Range(1e-3, 1e2, log=True),
        # Below 1, items that a user has would weigh less than the others.
        "alpha": Range(1.0, 20.0, log=True),
        "iterations": Range(10, 30),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        with implicit_package():
            from implicit.cpu.als import AlternatingLeastSquares

            model = AlternatingLeastSquares(**dataclasses.asdict(self), random_state=seed)
            model.fit(as_matrix(train), show_progress=False)
        return FoldedInFactors(
            model.user_factors,
            model.item_factors,
            train.counts > 0,
            all_weight=1.0,
            own_weight=self.alpha - 1,
            target=self.alpha,
            ridge=self.regularization,
        )


@dataclasses.dataclass(frozen=True)
class BPR(Method):
    """Matrix factorisation with the BPR loss (Rendle et al., UAI 2009), by `implicit`.

    It draws the negative of a pair from the items of all interactions, so by popularity; the paper
    draws it uniformly. Its scores hence leave popularity out, which costs accuracy where it counts.
    """

    # Length of the vectors of users and items.
    factors: int = 64
    # Of stochastic gradient descent.
    learning_rate: float = 0.01
    # Factor of the squared norms of a pair's rows.
    regularization: float = 0.003
    # Rounds over all interactions.
    iterations: int = 50

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Range(16, 256, log=True),
        "learning_rate": Range(1e-3, 0.1, log=True),
        "regularization": Range(1e-4, 0.1, log=True),
        "iterations": Range(20, 200, log=True),
    }
    ranks_untrained_users: ClassVar[bool] = False

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        with implicit_package():
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

    # cosine, tfidf or bm25.
    weighting: str = "bm25"
    # Similar items that each item keeps.
    neighbours: int = 200

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "weighting": Choice(("cosine", "tfidf", "bm25")),
        "neighbours": Range(5, 1000, log=True),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        with implicit_package(), warnings.catch_warnings():
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


@dataclasses.dataclass(frozen=True)
class ScaledIALS(Method):
    """Implicit ALS with regularisation scaled by frequency, by `irspack`.

    As in "Revisiting iALS" (Rendle et al., RecSys 2022) it minimises
    `sum over x_ui = 1 of (1 - p_u . q_i)² + unobserved_weight * sum over all u, i of
    (p_u . q_i)²`, plus `regularization * (unobserved_weight * I + n_u) * |p_u|²` of every user, who
    has `n_u` of the I items, and the same of every item: the paper's exponent is 1. Users are
    ranked with the vectors that training gave them.
    """

    # Length of the vectors of users and items.
    factors: int = 64
    # λ of the paper.
    regularization: float = 0.02
    # α_0 of the paper: weight of all pairs, where that of interactions is 1 more.
    unobserved_weight: float = 0.3

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Range(32, 256, log=True),
        "regularization": Range(1e-3, 0.1, log=True),
        "unobserved_weight": Range(0.01, 1.0, log=True),
    }

    # As in the paper; more change little.
    ITERATIONS: ClassVar[int] = 16

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        with irspack_package():
            from irspack.recommenders import IALSRecommender

            # Several threads add up in another order each time.
            model = IALSRecommender(
                as_matrix(train),
                n_components=self.factors,
                reg=self.regularization,
                alpha0=self.unobserved_weight,
                random_seed=seed,
                n_threads=1,
            )
            # Its own loop shows its progress.
            model.start_learning()
            for _ in range(self.ITERATIONS):
                model.run_epoch()
        return FoldedInFactors(
            model.get_user_embedding(),
            model.get_item_embedding(),
            train.counts > 0,
            all_weight=self.unobserved_weight,
            own_weight=1.0,
            target=1.0,
            ridge=self.regularization * self.unobserved_weight * train.num_items,
            ridge_per_item=self.regularization,
        )


@dataclasses.dataclass(frozen=True)
class Slim(Method):
    """SLIM (Ning and Karypis, ICDM 2011), by `irspack`.

    Its weights B, nonnegative and zero on the diagonal, minimise
    `||X - X B||² / 2 + l2 ||B||² / 2 + l1 * sum of B`.
    """

    # Factor of the squared weights.
    l2: float = 100.0
    # Factor of their sum, which makes them few.
    l1: float = 1.0

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "l2": Range(1.0, 1e4, log=True),
        "l1": Range(0.1, 100.0, log=True),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        both = self.l1 + self.l2
        with irspack_package():
            from irspack.recommenders import SLIMRecommender

            model = SLIMRecommender(
                as_matrix(train),
                alpha=both / train.num_users,
                l1_ratio=self.l1 / both,
                # Several threads go through the coordinates in another order each time.
                n_threads=1,
            )
            model.learn()
        return ItemWeights(_as_csr(model.W))


@dataclasses.dataclass(frozen=True)
class RP3Beta(Method):
    """Random walks of three steps, against popularity (Paudel et al., TiiS 2017), by `irspack`.

    An item j is reached from an item i by way of a random user of i, and a random item of this
    user. The probability of it is divided by the number of users of j, to the power `beta`. The
    `neighbours` likeliest i of every j are kept.
    """

    # Exponent of an item's number of users; 0 leaves popularity in.
    beta: float = 0.6
    # Items from which each item is reached.
    neighbours: int = 200

    space: ClassVar[Mapping[str, Range | Choice]] = {
        "beta": Range(0.0, 1.0),
        "neighbours": Range(5, 1000, log=True),
    }

    def fit(self, train: Interactions, seed: int = 0) -> Fitted:
        with irspack_package():
            from irspack.recommenders import RP3betaRecommender

            model = RP3betaRecommender(as_matrix(train), beta=self.beta, top_k=self.neighbours)
            model.learn()
        return ItemWeights(_as_csr(model.W))


METHODS: Mapping[str, type[Method]] = {
    "most_popular": MostPopular,
    "ease": Ease,
    "ials": IALS,
    "bpr": BPR,
    "item_knn": ItemKNN,
    "slim": Slim,
    "rp3beta": RP3Beta,
    "ials_scaled": ScaledIALS,
}


def _as_csr(weights: scipy.sparse.spmatrix) -> scipy.sparse.csr_matrix:
    """Return the weights of items as scores need them."""
    return scipy.sparse.csr_matrix(weights, dtype=np.float32)


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

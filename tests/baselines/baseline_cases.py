"""A small data set and a quick setting of each baseline."""

import numpy as np

from hlr_jax import baselines
from hlr_jax.baselines import (
    BPR,
    IALS,
    Ease,
    ItemKNN,
    MostPopular,
    RP3Beta,
    ScaledIALS,
    Slim,
    scoring,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions

USERS, ITEMS = 30, 14
SMALL = {
    "most_popular": MostPopular(),
    "ease": Ease(regularization=3.0),
    "ials": IALS(factors=4, regularization=0.5, alpha=3.0, iterations=5),
    "bpr": BPR(factors=4, learning_rate=0.05, iterations=10),
    "item_knn": ItemKNN(weighting="cosine", neighbours=5),
    "slim": Slim(l2=3.0, l1=0.3),
    "rp3beta": RP3Beta(beta=0.4, neighbours=5),
    "ials_scaled": ScaledIALS(factors=4, regularization=0.02, unobserved_weight=0.3),
}


def random_interactions(seed: int, share: float) -> Interactions:
    """Random pairs; the last user and the last item have none."""
    chosen = np.random.default_rng(seed).random((USERS, ITEMS)) < share
    chosen[-1] = chosen[:, -1] = False
    return Interactions.from_pairs(*np.nonzero(chosen), USERS, ITEMS)


def dense(interactions: Interactions) -> np.ndarray:
    matrix = np.zeros((interactions.num_users, interactions.num_items))
    for user in range(interactions.num_users):
        for item in interactions.of(user):
            matrix[user, item] = 1.0
    return matrix


def without(interactions: Interactions, other: Interactions) -> Interactions:
    pairs = np.nonzero((dense(interactions) > 0) & (dense(other) == 0))
    return Interactions.from_pairs(*pairs, USERS, ITEMS)


def small_dataset() -> Dataset:
    train = random_interactions(0, 0.3)
    valid = without(random_interactions(1, 0.1), train)
    test = without(random_interactions(2, 0.2), train.union(valid))
    return Dataset("made", train, valid, test, np.arange(USERS), np.arange(ITEMS))


def all_scores(scorer: baselines.Scorer, history: Interactions) -> np.ndarray:
    return scorer(np.arange(history.num_users), scoring.as_matrix(history))

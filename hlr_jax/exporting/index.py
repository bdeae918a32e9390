"""An index of approximate nearest items, and how much of the exact lists it finds."""

import importlib.util
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.sphere import Sphere
from hlr_jax.runs.recommender import Recommender

# Of hnswlib: links of an item, and how widely it searches when it builds and when it is asked.
_LINKS, _BUILT, _SEARCHED = 32, 200, 200


def missing(recommender: Recommender) -> str:
    """Say why there can be no index; "" if there can."""
    if not isinstance(recommender.model.geometry, Ball | Sphere):
        return "none: distances of this geometry cannot be looked up as Euclidean ones"
    if importlib.util.find_spec("hnswlib") is None:
        return "none: hnswlib is not installed (pip install 'hlr_jax[export]')"
    return ""


def build(recommender: Recommender, path: pathlib.Path) -> Any:
    """Write an HNSW index of the items' vectors, whose labels are rows of items.

    Items without a training interaction are not in it.
    """
    import hnswlib

    items = np.flatnonzero(recommender.trained_items)
    vectors = recommender.item_vectors()[items]
    index = hnswlib.Index(space="l2", dim=vectors.shape[1])
    index.init_index(len(items), M=_LINKS, ef_construction=_BUILT, random_seed=0)
    index.add_items(vectors, items, num_threads=1)
    index.set_ef(_SEARCHED)
    index.save_index(str(path))
    return index


def recall(
    recommender: Recommender, index: Any, users: Int[np.ndarray, "u"], k: int, candidates: int
) -> float:
    """Measure how many of users' k best items are among their candidates in the index.

    Of a relation that does not depend on the item, candidates are those nearest to where it leads;
    of any other, to the user itself, and they are to be ranked again exactly.
    """
    vectors = recommender.user_vectors(recommender.dataset.user_ids[users].tolist())
    wanted = recommender.recommend(
        recommender.dataset.user_ids[users].tolist(), k, filter_seen=False
    )
    found, _ = index.knn_query(vectors, candidates)
    hits, rows = 0, recommender.dataset.item_rows(wanted["item"].to_list())
    of_users = _lists(rows, wanted["rank"].to_numpy())
    for mine, near in zip(of_users, found.tolist(), strict=True):
        hits += len({*mine} & {*near})
    return hits / max(len(rows), 1)


def _lists(rows: Int[np.ndarray, "n"], ranks: Int[np.ndarray, "n"]) -> list[list[int]]:
    starts = np.flatnonzero(ranks == 1)
    return [part.tolist() for part in np.split(rows, starts[1:])]

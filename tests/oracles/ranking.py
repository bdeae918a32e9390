"""Scores of all items, and the best of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oracles.arrays import Array, Params, as_array
from oracles.geometries import BALL, Geometry
from oracles.relations import relation_function, transcf_relation
from oracles.rows import embedded_tables, first_vector, history_vectors


def rank_scores(
    params: Params,
    users: Sequence[int],
    histories: Sequence[Sequence[int]],
    model: str,
    options: Mapping[str, Any],
    geometry: Geometry = BALL,
) -> Array:
    """``-D(u + r, i)`` for some users (one history each) and every item, ``[users, items]``.

    An item of the history is scored like any other (itself being one of its references).
    TransCF reads ``options["user_neighbours"] [U, d]`` and ``options["item_neighbours"] [I, d]``.
    """
    user_table, item_table = embedded_tables(geometry, params)
    scores = np.zeros((len(users), len(item_table)))
    for row, (user, history) in enumerate(zip(users, histories, strict=True)):
        u = user_table[user]
        references = history_vectors(item_table, history)
        for n, i in enumerate(item_table):
            if model == "transcf":
                nbr_u = as_array(options["user_neighbours"])[user]
                relation = transcf_relation(nbr_u, as_array(options["item_neighbours"])[n])
            else:
                relation = relation_function(params, model, options, geometry)(u, i, references)
            scores[row, n] = -geometry.distance(first_vector(u, len(i)) + relation, i)
    return scores


def top_k(scores: ArrayLike, seen: Sequence[Collection[int]], k: int) -> NDArray[np.int64]:
    """Items of the k best scores of each row without its seen items, best first.

    The smaller item number wins a tie; ``-1`` fills a row with fewer than k unseen items.
    """
    table = as_array(scores)
    result = np.full((len(table), k), -1, dtype=np.int64)
    for row in range(len(table)):
        unseen = [n for n in range(table.shape[1]) if n not in set(seen[row])]
        ordered = sorted(unseen, key=lambda n: (-table[row, n], n))
        for place, n in enumerate(ordered[:k]):
            result[row, place] = n
    return result

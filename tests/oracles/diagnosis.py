"""How a relation differs between pairs, in loops over the pairs of a grid.

``relations[u][i]`` are vectors, ``distances[u][i]`` numbers; ``unseen[u][i]`` says what counts in
comparisons of rankings.
"""

import math
from collections.abc import Sequence

from oracles.arrays import Array


def mean(vectors: Sequence[Array]) -> Array:
    """Their sum over their number."""
    total = 0.0 * vectors[0]
    for vector in vectors:
        total = total + vector
    return total / len(vectors)


def square(vector: Array) -> float:
    """``||v||^2``."""
    return sum(float(x) * float(x) for x in vector)


def norm_and_deviation(relations: Sequence[Sequence[Array]]) -> tuple[float, float]:
    """Mean ``||r||``, and the root of the mean of ``||r - mean r||^2``."""
    every = [r for row in relations for r in row]
    centre = mean(every)
    norm = sum(math.sqrt(square(r)) for r in every) / len(every)
    return norm, math.sqrt(sum(square(r - centre) for r in every) / len(every))


def shares(relations: Sequence[Sequence[Array]]) -> dict[str, float]:
    """Two-way analysis of variance: ``r_ui = m + a_u + b_i + e_ui``, each part's mean square."""
    every = [r for row in relations for r in row]
    m = mean(every)
    a = [mean(row) - m for row in relations]
    b = [mean([row[i] for row in relations]) - m for i in range(len(relations[0]))]
    parts = {"users": 0.0, "items": 0.0, "pairs": 0.0}
    for u, row in enumerate(relations):
        for i, r in enumerate(row):
            parts["users"] += square(a[u])
            parts["items"] += square(b[i])
            parts["pairs"] += square(r - m - a[u] - b[i])
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def centred_rms(values: Sequence[Sequence[float]], counts: Sequence[Sequence[bool]]) -> float:
    """Root mean square of what counts, less its mean in its row; rows of one entry are left out."""
    total, number = 0.0, 0
    for row, of_row in zip(values, counts, strict=True):
        kept = [float(x) for x, c in zip(row, of_row, strict=True) if c]
        if len(kept) < 2:
            continue
        middle = sum(kept) / len(kept)
        total += sum((x - middle) ** 2 for x in kept)
        number += len(kept)
    return math.sqrt(total / number)


def overlap(
    one: Sequence[Sequence[float]],
    two: Sequence[Sequence[float]],
    counts: Sequence[Sequence[bool]],
    k: int,
) -> float:
    """Mean share of the k nearest that are the same."""
    found = []
    for a, b, of_row in zip(one, two, counts, strict=True):
        places = [i for i, c in enumerate(of_row) if c]
        if len(places) < 2:
            continue
        nearest = [set(sorted(places, key=lambda i, x=x: x[i])[:k]) for x in (a, b)]
        found.append(len(nearest[0] & nearest[1]) / len(nearest[0]))
    return sum(found) / len(found)


def relative_entropy(rows: Sequence[Sequence[float]]) -> float:
    """Mean ``-sum a log a / log n`` of rows of two weights and more, each divided by its sum."""
    found = []
    for row in rows:
        if len(row) < 2:
            continue
        total = sum(row)
        entropy = -sum(w / total * math.log(w / total) for w in row if w > 0)
        found.append(entropy / math.log(len(row)))
    return sum(found) / len(found)


def mean_cosine(memory: Array) -> float:
    """Mean over ordered pairs of slots."""
    found = []
    for m, one in enumerate(memory):
        for n, two in enumerate(memory):
            if m != n:
                product = sum(float(x) * float(y) for x, y in zip(one, two, strict=True))
                found.append(product / math.sqrt(square(one) * square(two)))
    return sum(found) / len(found)

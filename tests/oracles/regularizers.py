"""Penalties that are added to the loss of a batch or of a step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, Params, as_array
from oracles.geometries import BALL, Geometry
from oracles.rows import embedded_tables, user_vectors


def covariance_penalty(rows: ArrayLike, form: str = "sum") -> float:
    """Penalty on the covariances between features; ``C = X^T X / N``, ``X`` the centred rows.

    - ``"sum"``: ``sum_{f != g} C_fg``, signed. The authors' TensorFlow code (CollMetric, CML.py).
    - ``"squares"``: ``sum_{f != g} C_fg^2``. The authors' earlier Theano code, and the equation of
      the CML paper without its factor: the paper divides by the number of rows.
    - ``"log_det"``: ``tr(C) - sum_f log(l_f + 1e-6) - d``, ``l`` the eigenvalues of ``C`` (CPE).
    - ``"paper"``: ``(||C||_F^2 - ||diag(C)||_2^2) / N``, that is ``"squares"`` over ``N``.

    The authors' rows are the whole item table followed by the whole user table.
    """
    x = as_array(rows)
    num_rows, num_features = x.shape
    mean = np.zeros(num_features)
    for row in x:
        mean += row / num_rows
    signed, squares = 0.0, 0.0
    for f in range(num_features):
        for g in range(num_features):
            if f == g:
                continue
            covariance = 0.0
            for n in range(num_rows):
                covariance += float((x[n, f] - mean[f]) * (x[n, g] - mean[g])) / num_rows
            signed += covariance
            squares += covariance * covariance
    if form == "sum":
        return signed
    if form == "log_det":
        full = sum(np.outer(row - mean, row - mean) for row in x) / num_rows
        eigenvalues = np.linalg.eigvalsh(full)
        logs = sum(math.log(value + 1e-6) for value in eigenvalues)
        return float(sum(eigenvalues)) - logs - num_features
    if form == "squares":
        return squares
    if form == "paper":
        return squares / float(num_rows)
    raise ValueError(f"unknown form {form!r}")


def uniformity(points: ArrayLike, geometry: Geometry = BALL) -> float:
    """``log mean_{n != m} exp(-2 D(x_n, x_m))`` of points (DirectAU, KDD 2022)."""
    rows = as_array(points)
    total, number = 0.0, 0
    for n, x in enumerate(rows):
        for m, y in enumerate(rows):
            if n != m:
                total += math.exp(-2.0 * geometry.distance(x, y))
                number += 1
    return math.log(total / number)


def feature_points(
    features: ArrayLike, network: Mapping[str, ArrayLike], geometry: Geometry = BALL
) -> Array:
    """``f(x_j)`` of each item: a hidden ReLU layer, a linear one, then the ball (CML, sec. 3.3).

    Args:
      network: ``hidden_kernel [F, H]``, ``hidden_bias [H]``, ``output_kernel [H, d]`` and
        ``output_bias [d]``.
    """
    parts = {name: as_array(values) for name, values in network.items()}
    points = []
    for x in as_array(features):
        hidden = parts["hidden_bias"].copy()
        for n, value in enumerate(x):
            hidden += value * parts["hidden_kernel"][n]
        point = parts["output_bias"].copy()
        for n, value in enumerate(hidden):
            point += max(0.0, float(value)) * parts["output_kernel"][n]
        points.append(geometry.project(point))
    return np.array(points)


def feature_penalty(
    item_table: ArrayLike,
    features: ArrayLike,
    network: Mapping[str, ArrayLike],
    geometry: Geometry = BALL,
) -> float:
    """``L_f = sum_j D(f(x_j), v_j)`` over all items (CML, sec. 3.3)."""
    points = feature_points(features, network, geometry)
    items = [geometry.embed(row) for row in as_array(item_table)]
    return sum(geometry.distance(f, v) for f, v in zip(points, items, strict=True))


def dpcml_diversity(vectors: Sequence[Array], geometry: Geometry = BALL) -> float:
    """``sum_c sum_c' D(u_c, u_c') / (2 C (C - 1))`` (DPCML, section 2.4)."""
    total = sum(geometry.distance(x, y) for x in vectors for y in vectors)
    return total / (2 * len(vectors) * (len(vectors) - 1))


def slot_similarity(memory: ArrayLike) -> float:
    """Mean of the squared cosines between two different slots."""
    slots = as_array(memory)
    cosines = []
    for m in range(len(slots)):
        for n in range(len(slots)):
            if m != n:
                norms = math.sqrt((slots[m] @ slots[m]) * (slots[n] @ slots[n]))
                cosines.append(float(slots[m] @ slots[n]) / norms)
    return sum(cosine**2 for cosine in cosines) / len(cosines)


def dpcml_penalty(
    params: Params,
    batch: Mapping[str, ArrayLike],
    options: Mapping[str, Any],
    geometry: Geometry = BALL,
) -> float:
    """``eta (max(0, delta_1 - diversity) + max(0, diversity - delta_2))`` of each valid row's user.

    DPCML, eqs. 7 and 8. Options: ``diversity_weight`` (eta), ``min_diversity`` (delta_1) and
    ``max_diversity`` (delta_2).
    """
    eta = float(options.get("diversity_weight", 10.0))
    delta_1 = float(options.get("min_diversity", 0.05))
    delta_2 = float(options.get("max_diversity", 0.25))
    user_table, item_table = embedded_tables(geometry, params)
    total = 0.0
    for b, user in enumerate(np.asarray(batch["users"])):
        if not is_valid(batch, b):
            continue
        diversity = dpcml_diversity(user_vectors(user_table[user], item_table.shape[1]), geometry)
        total += eta * (max(0.0, delta_1 - diversity) + max(0.0, diversity - delta_2))
    return total


def transcf_penalty(
    params: Params,
    batch: Mapping[str, ArrayLike],
    positive_distance: Array,
    options: Mapping[str, Any],
    geometry: Geometry = BALL,
) -> float:
    """The two regularisation terms of TransCF, summed over the valid rows.

    ``alpha_nbr (D(u, nbr(u)) + D(i, nbr(i)) + sum_j D(j, nbr(j)))`` and ``alpha_dist D(u + r, i)``,
    with the neighbour means as constants, as in the published HLR code, which has one negative:
    with K the user and the positive still count once. Options: ``alpha_nbr`` and ``alpha_dist``.
    """
    alpha_nbr, alpha_dist = (float(options.get(name, 0.1)) for name in ("alpha_nbr", "alpha_dist"))
    user_table, item_table = embedded_tables(geometry, params)
    users, positives = np.asarray(batch["users"]), np.asarray(batch["positives"])
    negatives = np.asarray(batch["negatives"])
    to_user, to_positive, to_negative = (
        as_array(batch[f"{name}_neighbours"]) for name in ("user", "positive", "negative")
    )
    total = 0.0
    for b in range(len(users)):
        if not is_valid(batch, b):
            continue
        pull = geometry.distance(user_table[users[b]], to_user[b])
        pull += geometry.distance(item_table[positives[b]], to_positive[b])
        for k, j in enumerate(negatives[b]):
            pull += geometry.distance(item_table[j], to_negative[b, k])
        total += alpha_nbr * pull + alpha_dist * float(positive_distance[b])
    return total


def is_valid(batch: Mapping[str, ArrayLike], b: int) -> bool:
    """Whether a row of a batch is not padding."""
    return "row_mask" not in batch or bool(np.asarray(batch["row_mask"])[b])

"""Independent oracle of the models: float64 NumPy and loops, written from the equations.

Nothing here is fast and nothing here is shared with the library. Each function is one equation of
the papers, so that it can be read beside them:

- CML: Hsieh et al., "Collaborative Metric Learning", WWW 2017.
- LRML: Tay et al., "Latent Relational Metric Learning via Memory-based Attention", WWW 2018.
- HLR and HLR++: Tran et al., "Hierarchical Latent Relation Modeling for Collaborative Metric
  Learning", RecSys 2021.
- AdaCML: Zhang et al., "Adaptive Collaborative Metric Learning", DASFAA 2019.
- TransCF: Park et al., "Collaborative Translational Metric Learning", ICDM 2018.
- CPE: Bao et al., "Collaborative Preference Embedding against Sparse Labels", ACM MM 2019.
- DPCML: Bao et al., "The Minority Matters: A Diversity-Promoting Collaborative Metric Learning
  Algorithm", NeurIPS 2022. A row of its user table is C vectors, one after another.

Letters: ``u`` a user vector, ``i`` a target item vector (positive or negative), ``p_k`` the
vectors of the history, ``key`` of shape ``[d, M]``, ``memory`` of shape ``[M, d]``. A history given
as item numbers uses ``-1`` for an empty place; a history given as vectors holds valid ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Params = dict[str, Array]
# (user vector, item vector, history vectors) -> relation vector
RelationFn = Callable[[Array, Array, Sequence[Array]], Array]


# --- geometry ------------------------------------------------------------------------------------


def squared_distance(x: ArrayLike, y: ArrayLike) -> float:
    """``||x - y||^2``, the distance of every model (CML)."""
    total = 0.0
    for x_f, y_f in zip(_array(x), _array(y), strict=True):
        total += float(x_f - y_f) ** 2
    return total


def project(row_or_table: ArrayLike, radius: float) -> Array:
    """Rows moved into the ball of a radius: ``x <- x * min(1, radius / ||x||)`` (CML).

    A matrix is projected row by row. With the key of shape ``[d, M]`` a row is one feature over
    the slots, as in the published HLR code; with the memory ``[M, d]`` a row is one slot.
    """
    values = _array(row_or_table)
    if values.ndim == 1:
        norm = math.sqrt(float(values @ values))
        return values * min(1.0, radius / norm) if norm > 0.0 else values.copy()
    projected = np.empty_like(values)
    for n in range(values.shape[0]):
        projected[n] = project(values[n], radius)
    return projected


def project_on_sphere(row_or_table: ArrayLike, radius: float) -> Array:
    """Rows moved onto the sphere of a radius: ``x <- x * radius / ||x||`` (SFCML)."""
    values = _array(row_or_table)
    if values.ndim == 1:
        norm = math.sqrt(sum(float(x) ** 2 for x in values))
        return values * (radius / norm) if norm > 0.0 else values.copy()
    return np.stack([project_on_sphere(row, radius) for row in values])


def sampling_free_loss(
    users: ArrayLike, items: ArrayLike, liked: Sequence[Collection[int]], margin: float
) -> float:
    """Sum over users of the mean over all (liked, other) pairs of ``(margin - (D_j - D_i))^2``.

    SFCML: Bao et al., "Rethinking Collaborative Metric Learning: Toward an Efficient Alternative
    without Negative Sampling", TPAMI 2022.
    """
    total = 0.0
    for user, of_user in zip(_array(users), liked, strict=True):
        distances = [squared_distance(user, item) for item in _array(items)]
        others = [j for j in range(len(distances)) if j not in of_user]
        pairs = [(margin - (distances[j] - distances[i])) ** 2 for i in of_user for j in others]
        total += sum(pairs) / len(pairs)
    return total


# --- attention -----------------------------------------------------------------------------------


def memory_attention(query_vector: ArrayLike, key: ArrayLike) -> Array:
    """Attention over the memory slots, ``s = softmax(query @ key)`` (LRML; HLR, item-item level).

    The query is the elementwise product of a target and a reference; ``s`` has one entry a slot.
    """
    query, key_matrix = _array(query_vector), _array(key)
    logits = [float(query @ key_matrix[:, m]) for m in range(key_matrix.shape[1])]
    largest = max(logits)
    exps = [math.exp(logit - largest) for logit in logits]
    total = sum(exps)
    return _array([e / total for e in exps])


def latent_relation(target: ArrayLike, reference: ArrayLike, key: Array, memory: Array) -> Array:
    """``r = s @ memory`` with ``s = softmax((target * reference) @ key)`` (LRML)."""
    s = memory_attention(_array(target) * _array(reference), key)
    relation = np.zeros(memory.shape[1])
    for m in range(memory.shape[0]):
        relation += s[m] * memory[m]
    return relation


def smoothed_attention(weights: Sequence[float], beta: float) -> list[float]:
    """``a_k = exp(w_k) / (sum_l exp(w_l))^beta`` over the valid references (HLR, AdaCML).

    ``beta = 1`` is a softmax. Evaluated as ``exp(w_k - beta * logsumexp(w))``.
    """
    largest = max(weights)
    log_sum = largest + math.log(sum(math.exp(w - largest) for w in weights))
    return [math.exp(w - beta * log_sum) for w in weights]


def attend(judge: Array, vectors: Sequence[Array], weights: Sequence[float], beta: float) -> Array:
    """``sum_k a_k v_k``; the zero vector (of the judge's length) when there is no reference."""
    result = np.zeros(judge.shape[0])
    if len(vectors) == 0:
        return result
    for a_k, v_k in zip(smoothed_attention(weights, beta), vectors, strict=True):
        result += a_k * v_k
    return result


# --- relations: one user, one target item, the user's history ------------------------------------


def cml_relation(u: Array, i: Array, history: Sequence[Array] = ()) -> Array:
    """``r = 0``: the user is not translated (CML)."""
    return np.zeros_like(_array(u))


def lrml_relation(u: Array, i: Array, key: Array, memory: Array) -> Array:
    """``r = softmax((u * i) @ key) @ memory`` (LRML)."""
    return latent_relation(u, i, key, memory)


def hlr_relation(
    u: Array,
    i: Array,
    history: Sequence[Array],
    key: Array,
    memory: Array,
    beta: float = 1.0,
    include_user: bool = True,
    user_key: Array | None = None,
    user_memory: Array | None = None,
) -> Array:
    """Relation in two levels: item-item relations, then user attention over them (HLR).

    ``r_k = softmax((i * p_k) @ key) @ memory`` for each reference, then ``w_k = u . r_k`` and
    ``r = sum_k a_k r_k``. With ``include_user`` (as the published code) the user vector is
    reference 0; ``user_key`` and ``user_memory``, when given, serve that reference only.
    """
    relations: list[Array] = []
    if include_user:
        key_0 = key if user_key is None else user_key
        memory_0 = memory if user_memory is None else user_memory
        relations.append(latent_relation(i, u, key_0, memory_0))
    for p_k in history:
        relations.append(latent_relation(i, p_k, key, memory))
    weights = [float(u @ r_k) for r_k in relations]
    return attend(u, relations, weights, beta)


def hlrpp_relation(
    u: Array, i: Array, history: Sequence[Array], key: Array, memory: Array, beta: float = 1.0
) -> Array:
    """Sum of a user-attended and an item-attended relation (HLR++).

    First: target ``i``, references ``p_1..p_n``, ``w_k = u . r_k``; zero without a history.
    Second: target ``u``, references ``i, p_1..p_n``, ``w_k = i . r_k``.
    """
    first = [latent_relation(i, p_k, key, memory) for p_k in history]
    first_weights = [float(u @ r_k) for r_k in first]
    second = [latent_relation(u, ref, key, memory) for ref in [i, *history]]
    second_weights = [float(i @ r_k) for r_k in second]
    return attend(u, first, first_weights, beta) + attend(i, second, second_weights, beta)


def adacml_relation(u: Array, i: Array, history: Sequence[Array], beta: float = 1.0) -> Array:
    """``r = sum_k a_k p_k`` with ``w_k = i . p_k`` (AdaCML): the user adapts to the target."""
    weights = [float(i @ p_k) for p_k in history]
    return attend(i, list(history), weights, beta)


def history_mean_relation(
    u: Array, history: Sequence[Array], weight: float = 1.0, radius: float = 1.0
) -> Array:
    """``r = project(u + weight * mean_k p_k) - u``; without a history the mean is zero."""
    mean = np.zeros(len(u))
    for p_k in history:
        mean += p_k / len(history)
    return project(u + weight * mean, radius) - u


def transcf_relation(user_neighbour: Array, item_neighbour: Array) -> Array:
    """``r = nbr(u) * nbr(i)``, elementwise (TransCF)."""
    return user_neighbour * item_neighbour


def transcf_neighbours(params: Params, pairs: Iterable[tuple[int, int]]) -> tuple[Array, Array]:
    """``nbr(u)``: mean row of u's training items; ``nbr(i)``: mean row of i's training users.

    Returns ``[U, d]`` and ``[I, d]`` (TransCF); a row without any interaction is zero.
    """
    user, item = params["user"], params["item"]
    user_sum, item_sum = np.zeros_like(user), np.zeros_like(item)
    user_count, item_count = np.zeros(len(user)), np.zeros(len(item))
    for u, i in pairs:
        user_sum[u] += item[i]
        item_sum[i] += user[u]
        user_count[u] += 1
        item_count[i] += 1
    user_mean = user_sum / np.maximum(user_count, 1)[:, None]
    item_mean = item_sum / np.maximum(item_count, 1)[:, None]
    return user_mean, item_mean


def user_vectors(row: Array, dim: int) -> list[Array]:
    """The vectors that a row of the user table holds: one, or with DPCML several (eq. 1)."""
    return [row[start : start + dim] for start in range(0, len(row), dim)]


def dpcml_relation(u: Array, i: Array, history: Sequence[Array] = ()) -> Array:
    """From the user's first vector to the one closest to the item (DPCML, eq. 3)."""
    vectors = user_vectors(u, len(i))
    closest = vectors[0]
    for vector in vectors[1:]:
        if squared_distance(vector, i) < squared_distance(closest, i):
            closest = vector
    return closest - vectors[0]


def dpcml_diversity(vectors: Sequence[Array]) -> float:
    """``sum_c sum_c' ||u_c - u_c'||^2 / (2 C (C - 1))`` (DPCML, section 2.4)."""
    total = sum(squared_distance(x, y) for x in vectors for y in vectors)
    return total / (2 * len(vectors) * (len(vectors) - 1))


def dpcml_penalty(
    params: Params,
    batch: Mapping[str, ArrayLike],
    eta: float,
    delta_1: float,
    delta_2: float,
) -> float:
    """``eta (max(0, delta_1 - diversity) + max(0, diversity - delta_2))`` of each valid row's user.

    DPCML, eqs. 7 and 8.
    """
    dim, total = _array(params["item"]).shape[1], 0.0
    for b, user in enumerate(np.asarray(batch["users"])):
        if not _is_valid(batch, b):
            continue
        diversity = dpcml_diversity(user_vectors(_array(params["user"])[user], dim))
        total += eta * (max(0.0, delta_1 - diversity) + max(0.0, diversity - delta_2))
    return total


def relation_function(params: Params, model: str, options: Mapping[str, Any]) -> RelationFn:
    """The relation of a model with its parameters, as a function of ``(u, i, history)``.

    Options: ``beta``, ``include_user``, ``separate_user_memory``, ``history_weight``,
    ``clip_translated``.
    TransCF has none: its relation is not a function of these vectors.
    """
    beta = float(options.get("beta", 1.0))
    if model in ("cml", "cmlf"):
        return cml_relation
    if model == "lrml":
        return lambda u, i, history: lrml_relation(u, i, params["key"], params["memory"])
    if model == "hlr":
        separate = bool(options.get("separate_user_memory", False))
        return lambda u, i, history: hlr_relation(
            u,
            i,
            history,
            params["key"],
            params["memory"],
            beta=beta,
            include_user=bool(options.get("include_user", True)),
            user_key=params["user_key"] if separate else None,
            user_memory=params["user_memory"] if separate else None,
        )
    if model == "hlrpp":
        return lambda u, i, history: hlrpp_relation(
            u, i, history, params["key"], params["memory"], beta=beta
        )
    if model == "adacml":
        return lambda u, i, history: adacml_relation(u, i, history, beta=beta)
    if model == "history_mean":
        names = "history_weight", "clip_translated"
        weight, radius = (float(options.get(name, 1.0)) for name in names)
        return lambda u, i, history: history_mean_relation(u, history, weight, radius)
    if model == "dpcml":
        return dpcml_relation
    raise ValueError(f"no relation of (u, i, history) for the model {model!r}")


# --- distances and losses ------------------------------------------------------------------------


def triplet_distances(
    relation_fn: RelationFn,
    u: Array,
    positive: Array,
    negatives: ArrayLike,
    history: Sequence[Array],
    copy_relation: bool = False,
) -> tuple[float, Array]:
    """``D(u, i) = ||u + r(u, i) - i||^2`` and ``D(u, j)`` for the K negatives.

    The relation of a negative is recomputed with it as the target; with ``copy_relation`` the
    positive's relation is reused (an option of the published HLR code).
    """
    first = user_vectors(u, len(positive))[0]
    positive_relation = relation_fn(u, positive, history)
    positive_distance = squared_distance(first + positive_relation, positive)
    negative_distances = []
    for negative in _array(negatives):
        relation = positive_relation if copy_relation else relation_fn(u, negative, history)
        negative_distances.append(squared_distance(first + relation, negative))
    return positive_distance, _array(negative_distances)


def rank_weight_of(impostors: int, num_negatives: int, num_items: int, floor: bool = True) -> float:
    """``log(1 + rank)`` with ``rank = floor(I * impostors / W)`` (CML).

    The paper takes the floor; the authors' TensorFlow code (CollMetric) does not (``floor=False``).
    """
    if floor:
        return math.log1p(num_items * impostors // num_negatives)
    return math.log1p(num_items * impostors / num_negatives)


def hinge_loss(
    positive_distance: ArrayLike,
    negative_distance: ArrayLike,
    margin: float,
    reduction: str = "sum",
    row_mask: ArrayLike | None = None,
    rank_weight: bool = False,
    num_items: int | None = None,
    rank_floor: bool = True,
) -> float:
    """``sum max(0, D(u, i) - D(u, j) + margin)`` over valid rows and their K negatives.

    The sum without a mean is the published HLR code; ``reduction="mean"`` divides by the number
    of hinge terms of the valid rows (0 when there is none). With ``rank_weight`` (CML) a row
    has one term only: the hinge of its closest negative times `rank_weight_of`, where an impostor
    is a negative with ``D(u, i) - D(u, j) + margin > 0``. The weight is piecewise constant, hence
    a constant in the gradient.
    """
    d_pos, d_neg = _array(positive_distance), _array(negative_distance)
    num_rows, num_negatives = d_neg.shape
    mask = np.ones(num_rows) if row_mask is None else _array(row_mask)
    total, terms = 0.0, 0
    for b in range(num_rows):
        if mask[b] == 0:
            continue
        hinges = [max(0.0, float(d_pos[b] - d_neg[b, k]) + margin) for k in range(num_negatives)]
        if rank_weight:
            if num_items is None:
                raise ValueError("rank_weight needs num_items")
            impostors = sum(1 for hinge in hinges if hinge > 0.0)
            # the largest hinge is the one of the closest negative
            weight = rank_weight_of(impostors, num_negatives, num_items, rank_floor)
            total += weight * max(hinges)
            terms += 1
        else:
            total += sum(hinges)
            terms += num_negatives
    return _reduce(total, terms, reduction)


def semi_hard_negative(positive: float, negatives: Sequence[float]) -> float:
    """Distance of the closest negative that is farther than the positive (FaceNet).

    Where none is farther, that of the closest of all. Schroff et al., "FaceNet", CVPR 2015.
    """
    farther = [negative for negative in negatives if negative > positive]
    return min(farther) if farther else min(negatives)


def sampled_softmax(positive: float, negatives: Sequence[float], temperature: float) -> float:
    """``-log(exp(-D_i / T) / (exp(-D_i / T) + sum_j exp(-D_j / T)))``."""
    scores = [-distance / temperature for distance in [positive, *negatives]]
    largest = max(scores)
    total = sum(math.exp(score - largest) for score in scores)
    return largest + math.log(total) - scores[0]


def loss_of_row(
    name: str,
    positive: float,
    negatives: Sequence[float],
    margin: float = 0.5,
    temperature: float = 0.5,
    negative_weight: float = 100.0,
) -> tuple[float, int]:
    """Loss of a positive with the negatives that count, and how many terms it is a sum of."""
    if not negatives:
        terms = 0 if name in ("hinge", "two_sided") else 1
        return positive if name == "contrastive" else 0.0, terms
    if name == "softmax":
        return sampled_softmax(positive, negatives, temperature), 1
    if name == "semi_hard":
        return max(0.0, positive - semi_hard_negative(positive, negatives) + margin), 1
    if name == "two_sided":
        gaps = [negative - positive for negative in negatives]
        both = [max(0.0, gap - margin) + max(0.0, margin - gap) for gap in gaps]
        return sum(both), len(both)
    if name == "contrastive":
        lacking = [max(0.0, margin - negative) for negative in negatives]
        return positive + negative_weight * sum(lacking) / len(lacking), 1
    if name == "squared":
        squares = [(margin + positive - negative) ** 2 for negative in negatives]
        return sum(squares) / len(squares), 1
    if name == "closest":
        return max(0.0, positive - min(negatives) + margin), 1
    return sum(max(0.0, positive - negative + margin) for negative in negatives), len(negatives)


def places_that_count(pool: Sequence[int], seen: Collection[int]) -> list[int]:
    """Places of a pool with an item that the user has not seen and that is not further ahead."""
    places, met = [], set()
    for place, item in enumerate(pool):
        if item not in seen and item not in met:
            places.append(place)
        met.add(item)
    return places


def balance_weight(interactions: int, balance: float) -> float:
    """What an interaction counts of a user with so many: ``n^-balance``."""
    return float(max(interactions, 1)) ** -balance


def pool_loss(
    name: str,
    positive_distance: ArrayLike,
    pool_distance: ArrayLike,
    pool: Sequence[int],
    seen: Sequence[Collection[int]],
    weight: ArrayLike,
    margin: float = 0.5,
    temperature: float = 0.5,
    rank_weight: bool = False,
    num_items: int | None = None,
) -> tuple[float, float]:
    """Loss of a batch whose rows share their negatives, and its terms, both weighted.

    Args:
      positive_distance, pool_distance: ``[B]``, and ``[B, N]`` to each item of the pool.
      seen: the items of each row's user.
      weight: ``[B]`` how much each row counts.
    """
    d_pos, d_pool, weights = _array(positive_distance), _array(pool_distance), _array(weight)
    total, terms = 0.0, 0.0
    for b in range(len(d_pos)):
        negatives = [float(d_pool[b, n]) for n in places_that_count(pool, seen[b])]
        if rank_weight:
            assert num_items is not None
            impostors = sum(1 for d in negatives if float(d_pos[b]) - d + margin > 0.0)
            loss, own = loss_of_row("closest", float(d_pos[b]), negatives, margin)
            loss *= rank_weight_of(impostors, max(1, len(negatives)), num_items)
        else:
            loss, own = loss_of_row(name, float(d_pos[b]), negatives, margin, temperature)
        total += weights[b] * loss
        terms += weights[b] * own
    return total, terms


def covariance_penalty(rows: ArrayLike, form: str = "sum") -> float:
    """Penalty on the covariances between features; ``C = X^T X / N``, ``X`` the centred rows.

    - ``"sum"``: ``sum_{f != g} C_fg``, signed. The authors' TensorFlow code (CollMetric, CML.py).
    - ``"squares"``: ``sum_{f != g} C_fg^2``. The authors' earlier Theano code, and the equation of
      the CML paper without its factor: the paper divides by the number of rows.
    - ``"log_det"``: ``tr(C) - sum_f log(l_f + 1e-6) - d``, ``l`` the eigenvalues of ``C`` (CPE).
    - ``"paper"``: ``(||C||_F^2 - ||diag(C)||_2^2) / N``, that is ``"squares"`` over ``N``.

    The authors' rows are the whole item table followed by the whole user table.
    """
    x = _array(rows)
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


def feature_points(
    features: ArrayLike,
    network: Mapping[str, ArrayLike],
    radius: float,
) -> Array:
    """``f(x_j)`` of each item: a hidden ReLU layer, a linear one, then the ball (CML, sec. 3.3).

    Args:
      network: ``hidden_kernel [F, H]``, ``hidden_bias [H]``, ``output_kernel [H, d]`` and
        ``output_bias [d]``.
    """
    parts = {name: _array(values) for name, values in network.items()}
    points = []
    for x in _array(features):
        hidden = parts["hidden_bias"].copy()
        for n, value in enumerate(x):
            hidden += value * parts["hidden_kernel"][n]
        point = parts["output_bias"].copy()
        for n, value in enumerate(hidden):
            point += max(0.0, float(value)) * parts["output_kernel"][n]
        points.append(project(point, radius))
    return np.array(points)


def feature_penalty(
    item_table: ArrayLike, features: ArrayLike, network: Mapping[str, ArrayLike], radius: float
) -> float:
    """``L_f = sum_j ||f(x_j) - v_j||^2`` over all items (CML, sec. 3.3)."""
    points = feature_points(features, network, radius)
    return sum(squared_distance(f, v) for f, v in zip(points, _array(item_table), strict=True))


def history_vectors(item_table: Array, history: Iterable[int]) -> list[Array]:
    """The item rows of the valid places of a history; ``-1`` is an empty place."""
    return [item_table[n] for n in history if n >= 0]


def batch_distances(
    params: Params, batch: Mapping[str, ArrayLike], model: str, options: Mapping[str, Any]
) -> tuple[Array, Array]:
    """``D(u, i)`` of shape ``[B]`` and ``D(u, j)`` of shape ``[B, K]`` of a batch of triplets.

    The batch has ``users [B]``, ``positives [B]``, ``negatives [B, K]`` and, where the model reads
    it, ``history [B, P]``. TransCF reads ``user_neighbours [B, d]``, ``positive_neighbours [B, d]``
    and ``negative_neighbours [B, K, d]``.
    """
    user_table, item_table = _array(params["user"]), _array(params["item"])
    users, positives = np.asarray(batch["users"]), np.asarray(batch["positives"])
    negatives = np.asarray(batch["negatives"])
    d_pos = np.zeros(len(users))
    d_neg = np.zeros(negatives.shape)
    for b in range(len(users)):
        u, i = user_table[users[b]], item_table[positives[b]]
        js = [item_table[j] for j in negatives[b]]
        if model == "transcf":
            nbr_u = _array(batch["user_neighbours"])[b]
            nbr_i = _array(batch["positive_neighbours"])[b]
            d_pos[b] = squared_distance(u + transcf_relation(nbr_u, nbr_i), i)
            for k, j in enumerate(js):
                nbr_j = _array(batch["negative_neighbours"])[b, k]
                nbr_j = nbr_i if options.get("copy_relation", False) else nbr_j
                d_neg[b, k] = squared_distance(u + transcf_relation(nbr_u, nbr_j), j)
            continue
        places = np.asarray(batch["history"])[b] if "history" in batch else []
        history = history_vectors(item_table, places)
        d_pos[b], d_neg[b] = triplet_distances(
            relation_function(params, model, options),
            u,
            i,
            js,
            history,
            copy_relation=bool(options.get("copy_relation", False)),
        )
    return d_pos, d_neg


def transcf_penalty(
    params: Params,
    batch: Mapping[str, ArrayLike],
    positive_distance: Array,
    alpha_nbr: float,
    alpha_dist: float,
) -> float:
    """The two regularisation terms of TransCF, summed over the valid rows.

    ``alpha_nbr (||u - nbr(u)||^2 + ||i - nbr(i)||^2 + sum_j ||j - nbr(j)||^2)`` and
    ``alpha_dist D(u, i)``, with the neighbour means as constants, as in the published HLR code,
    which has one negative: with K the user and the positive still count once.
    """
    user_table, item_table = _array(params["user"]), _array(params["item"])
    users, positives = np.asarray(batch["users"]), np.asarray(batch["positives"])
    negatives = np.asarray(batch["negatives"])
    total = 0.0
    for b in range(len(users)):
        if not _is_valid(batch, b):
            continue
        pull = squared_distance(user_table[users[b]], _array(batch["user_neighbours"])[b])
        pull += squared_distance(item_table[positives[b]], _array(batch["positive_neighbours"])[b])
        for k, j in enumerate(negatives[b]):
            pull += squared_distance(item_table[j], _array(batch["negative_neighbours"])[b, k])
        total += alpha_nbr * pull + alpha_dist * float(positive_distance[b])
    return total


def batch_loss(
    params: Params,
    batch: Mapping[str, ArrayLike],
    model: str,
    options: Mapping[str, Any],
    margin: float = 0.5,
    reduction: str = "sum",
    rank_weight: bool = False,
    rank_floor: bool = True,
    covariance_weight: float = 0.0,
    covariance_form: str = "sum",
) -> float:
    """The training loss of a batch: hinge, TransCF's, DPCML's and CML's covariance penalty.

    ``batch["row_mask"] [B]`` (optional) drops padded rows. The mean divides TransCF's and DPCML's
    penalties by the same number of hinge terms; the covariance penalty, on the item table followed
    by the user table (all of its vectors), is added after the reduction.
    """
    d_pos, d_neg = batch_distances(params, batch, model, options)
    loss = hinge_loss(
        d_pos,
        d_neg,
        margin,
        reduction,
        row_mask=batch.get("row_mask"),
        rank_weight=rank_weight,
        num_items=len(params["item"]),
        rank_floor=rank_floor,
    )
    if model in ("transcf", "dpcml"):
        if model == "transcf":
            penalty = transcf_penalty(
                params,
                batch,
                d_pos,
                float(options.get("alpha_nbr", 0.1)),
                float(options.get("alpha_dist", 0.1)),
            )
        else:
            penalty = dpcml_penalty(
                params,
                batch,
                float(options.get("diversity_weight", 10.0)),
                float(options.get("min_diversity", 0.05)),
                float(options.get("max_diversity", 0.25)),
            )
        rows = sum(1 for b in range(len(d_pos)) if _is_valid(batch, b))
        loss += _reduce(penalty, rows if rank_weight else rows * d_neg.shape[1], reduction)
    if covariance_weight != 0.0:
        item = _array(params["item"])
        vectors = _array(params["user"]).reshape(-1, item.shape[1])
        rows_of_both = np.concatenate([item, vectors])
        loss += covariance_weight * covariance_penalty(rows_of_both, covariance_form)
    return loss


# --- gradients and optimisation ------------------------------------------------------------------


def numerical_gradient(
    f: Callable[[Params], float], params: Mapping[str, ArrayLike], step: float = 1e-5
) -> Params:
    """``(f(x + step e) - f(x - step e)) / (2 step)`` for every entry of every array.

    The truncation error is of the order of ``step^2`` and the rounding error of the order of
    ``1e-16 |f| / step``: both near ``1e-9`` for the losses of small batches, provided that no
    hinge changes sign within the step.
    """
    point = {name: _array(value).copy() for name, value in params.items()}
    gradient = {name: np.zeros_like(value) for name, value in point.items()}
    for name, value in point.items():
        for index in np.ndindex(value.shape):
            centre = float(value[index])
            value[index] = centre + step
            above = f(point)
            value[index] = centre - step
            below = f(point)
            value[index] = centre
            gradient[name][index] = (above - below) / (2.0 * step)
    return gradient


def adam_steps_dense(
    gradient_fn: Callable[[Params], Params],
    params: Mapping[str, ArrayLike],
    steps: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    radius: float | None = 1.0,
    projected: Collection[str] = ("user", "item"),
) -> list[Params]:
    """Parameters after each step of TF1's dense Adam, each step followed by the projection.

    ``lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)``, ``m <- beta1 m + (1 - beta1) g``,
    ``v <- beta2 v + (1 - beta2) g^2``, ``x <- x - lr_t m / (sqrt(v) + epsilon)``: the formulation
    before section 2.1 of Kingma and Ba (2015), with epsilon outside the bias correction. Both
    moments decay and every row moves, also the rows that the batch did not touch.
    """
    point = {name: _array(value).copy() for name, value in params.items()}
    first = {name: np.zeros_like(value) for name, value in point.items()}
    second = {name: np.zeros_like(value) for name, value in point.items()}
    trajectory: list[Params] = []
    for t in range(1, steps + 1):
        gradient = gradient_fn(point)
        rate = learning_rate * math.sqrt(1.0 - beta2**t) / (1.0 - beta1**t)
        after: Params = {}
        for name, value in point.items():
            first[name] = beta1 * first[name] + (1.0 - beta1) * gradient[name]
            second[name] = beta2 * second[name] + (1.0 - beta2) * gradient[name] ** 2
            after[name] = value - rate * first[name] / (np.sqrt(second[name]) + epsilon)
            if radius is not None and name in projected:
                after[name] = project(after[name], radius)
        point = after
        trajectory.append(point)
    return trajectory


# --- ranking -------------------------------------------------------------------------------------


def rank_scores(
    params: Params,
    users: Sequence[int],
    histories: Sequence[Sequence[int]],
    model: str,
    options: Mapping[str, Any],
) -> Array:
    """``-D(u, i)`` for some users (one history each) and every item, ``[users, items]``.

    An item of the history is scored like any other (itself being one of its references).
    TransCF reads ``options["user_neighbours"] [U, d]`` and ``options["item_neighbours"] [I, d]``.
    """
    user_table, item_table = _array(params["user"]), _array(params["item"])
    scores = np.zeros((len(users), len(item_table)))
    for row, (user, history) in enumerate(zip(users, histories, strict=True)):
        u = user_table[user]
        references = history_vectors(item_table, history)
        for n, i in enumerate(item_table):
            if model == "transcf":
                nbr_u = _array(options["user_neighbours"])[user]
                relation = transcf_relation(nbr_u, _array(options["item_neighbours"])[n])
            else:
                relation = relation_function(params, model, options)(u, i, references)
            scores[row, n] = -squared_distance(user_vectors(u, len(i))[0] + relation, i)
    return scores


def top_k(scores: ArrayLike, seen: Sequence[Collection[int]], k: int) -> NDArray[np.int64]:
    """Items of the k best scores of each row without its seen items, best first.

    The smaller item number wins a tie; ``-1`` fills a row with fewer than k unseen items.
    """
    table = _array(scores)
    result = np.full((len(table), k), -1, dtype=np.int64)
    for row in range(len(table)):
        unseen = [n for n in range(table.shape[1]) if n not in set(seen[row])]
        ordered = sorted(unseen, key=lambda n: (-table[row, n], n))
        for place, n in enumerate(ordered[:k]):
            result[row, place] = n
    return result


# --- small helpers -------------------------------------------------------------------------------


def _array(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)


def _reduce(total: float, terms: int, reduction: str) -> float:
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / max(terms, 1)
    raise ValueError(f"unknown reduction {reduction!r}")


def _is_valid(batch: Mapping[str, ArrayLike], b: int) -> bool:
    return "row_mask" not in batch or bool(np.asarray(batch["row_mask"])[b])

"""Relations: the vector that moves a user towards one target item, by model.

All vectors are points of the model's geometry; only DPCML's relation measures a distance.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oracles.arrays import Array, Params
from oracles.attention import attend, formed_slots, latent_relation
from oracles.distances import project
from oracles.geometries import BALL, Geometry
from oracles.rows import embedded_tables, user_vectors

# (user vector, item vector, history vectors) -> relation vector
RelationFn = Callable[[Array, Array, Sequence[Array]], Array]


def cml_relation(u: Array, i: Array, history: Sequence[Array] = ()) -> Array:
    """``r = 0``: the user is not translated (CML)."""
    return np.zeros_like(u, dtype=np.float64)


def lrml_relation(u: Array, i: Array, key: Array, memory: Array) -> Array:
    """``r = softmax((u * i) @ key) @ memory`` (LRML)."""
    return latent_relation(u, i, key, memory)


def hlr_relation(
    u: Array,
    i: Array,
    history: Sequence[Array],
    memories: Mapping[str, Array],
    beta: float = 1.0,
    include_user: bool = True,
) -> Array:
    """Relation in two levels: item-item relations, then user attention over them (HLR).

    ``r_k = softmax((i * p_k) @ key) @ memory`` for each reference, then ``w_k = u . r_k`` and
    ``r = sum_k a_k r_k``. With ``include_user`` (as the published code) the user vector is
    reference 0.

    Args:
      memories: ``key`` and ``memory``; ``user_key`` and ``user_memory``, when given, serve the
        user's reference only.
    """
    key, memory = memories["key"], memories["memory"]
    relations: list[Array] = []
    if include_user:
        key_0, memory_0 = memories.get("user_key", key), memories.get("user_memory", memory)
        relations.append(latent_relation(i, u, key_0, memory_0))
    for p_k in history:
        relations.append(latent_relation(i, p_k, key, memory))
    weights = [float(u @ r_k) for r_k in relations]
    return attend(u, relations, weights, beta)


def hlrpp_relation(
    u: Array, i: Array, history: Sequence[Array], memories: Mapping[str, Array], beta: float = 1.0
) -> Array:
    """Sum of a user-attended and an item-attended relation (HLR++).

    First: target ``i``, references ``p_1..p_n``, ``w_k = u . r_k``; zero without a history.
    Second: target ``u``, references ``i, p_1..p_n``, ``w_k = i . r_k``.

    Args:
      memories: ``key`` and ``memory``.
    """
    key, memory = memories["key"], memories["memory"]
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


def items_only_relation(i: Array, history: Sequence[Array], weight: float) -> Array:
    """``r = weight * mean_k p_k`` from the origin: the user is where its items are."""
    total = np.zeros(len(i))
    for p_k in history:
        total += p_k
    return weight * total / max(len(history), 1)


def recent_items_relation(i: Array, history: Sequence[Array], weight: float, decay: float) -> Array:
    """``r = weight * sum_k decay^k p_k``, with the last item first."""
    total = np.zeros_like(i)
    for k, p_k in enumerate(history):
        total = total + decay**k * p_k
    return weight * total


def nearest_items_relation(
    u: Array, i: Array, history: Sequence[Array], weight: float, temperature: float
) -> Array:
    """``r = weight * sum_k a_k (p_k - u)``, with ``a`` a softmax of ``i . p_k / temperature``."""
    logits = [float(i @ p_k) / temperature for p_k in history]
    return weight * attend(u, [p_k - u for p_k in history], logits, 1.0)


def rotation_relation(u: Array, i: Array, key: Array, angles: Array) -> Array:
    """``r = u' - u``: complex number ``n`` is turned by ``sum_m ((u * i) . key_m) angles_mn``."""
    rotated, half = np.zeros(len(u)), len(u) // 2
    products = [sum(u[k] * i[k] * key[k, m] for k in range(len(u))) for m in range(len(angles))]
    for n in range(half):
        theta = sum(product * angles[m, n] for m, product in enumerate(products))
        turned = complex(u[n], u[half + n]) * np.exp(1j * theta)
        rotated[n], rotated[half + n] = turned.real, turned.imag
    return rotated - u


def multi_head_relation(u: Array, i: Array, key: Array, memory: Array, heads: int) -> Array:
    """LRML's relation of each of ``heads`` equal parts of the dimensions, joined."""
    width = len(u) // heads
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    return np.concatenate([lrml_relation(u[p], i[p], key[p], memory[:, p]) for p in parts])


def transcf_relation(user_neighbour: Array, item_neighbour: Array) -> Array:
    """``r = nbr(u) * nbr(i)``, elementwise (TransCF)."""
    return user_neighbour * item_neighbour


def transcf_neighbours(
    params: Params, pairs: Iterable[tuple[int, int]], geometry: Geometry = BALL
) -> tuple[Array, Array]:
    """``nbr(u)``: mean point of u's training items; ``nbr(i)``: mean point of i's training users.

    Returns ``[U, d]`` and ``[I, d]`` (TransCF); a row without any interaction is zero.
    """
    user, item = embedded_tables(geometry, params)
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


def dpcml_relation(
    u: Array, i: Array, history: Sequence[Array] = (), geometry: Geometry = BALL
) -> Array:
    """From the user's first vector to the one closest to the item (DPCML, eq. 3)."""
    vectors = user_vectors(u, len(i))
    closest = vectors[0]
    for vector in vectors[1:]:
        if geometry.distance(vector, i) < geometry.distance(closest, i):
            closest = vector
    return closest - vectors[0]


def read_memories(params: Params, options: Mapping[str, Any]) -> dict[str, Array]:
    """The keys, times ``key_scale``, and the memories, formed, among parameters."""
    scale, form = float(options.get("key_scale", 1.0)), str(options.get("slot_form", "free"))
    norm = float(options.get("slot_norm", 0.0))
    keys = {name: scale * x for name, x in params.items() if name.endswith("key")}
    memories = {x: formed_slots(params[x], form, norm) for x in params if x.endswith("memory")}
    return keys | memories


def relation_function(
    params: Params, model: str, options: Mapping[str, Any], geometry: Geometry = BALL
) -> RelationFn:
    """The relation of a model with its parameters, as a function of ``(u, i, history)``.

    Options: ``beta``, ``include_user``, ``separate_user_memory``, ``history_weight``,
    ``clip_translated``, ``heads``; of memories ``slot_form``, ``slot_norm`` and ``key_scale``.
    TransCF has none: its relation is not a function of these vectors.
    """
    beta = float(options.get("beta", 1.0))
    if model in ("cml", "cmlf"):
        return cml_relation
    memories = read_memories(params, options)
    if model == "lrml":
        return lambda u, i, history: lrml_relation(u, i, memories["key"], memories["memory"])
    if model == "hlr":
        if not options.get("separate_user_memory", False):
            memories = {name: memories[name] for name in ("key", "memory")}
        include_user = bool(options.get("include_user", True))
        return lambda u, i, history: hlr_relation(u, i, history, memories, beta, include_user)
    if model == "hlrpp":
        return lambda u, i, history: hlrpp_relation(u, i, history, memories, beta)
    if model == "adacml":
        return lambda u, i, history: adacml_relation(u, i, history, beta)
    if model == "history_mean":
        names_of = "history_weight", "clip_translated"
        weight, radius = (float(options.get(name, 1.0)) for name in names_of)
        return lambda u, i, history: history_mean_relation(u, history, weight, radius)
    if model == "items_only":
        return lambda u, i, history: items_only_relation(i, history, float(params["weight"]))
    if model == "recent_items":
        decay = float(1 / (1 + np.exp(-params["logit"])))
        return lambda u, i, past: recent_items_relation(i, past, float(params["weight"]), decay)
    if model == "nearest_items":
        part = float(1 / (1 + np.exp(-params["logit"])))
        temperature = float(np.exp(params["log_temperature"]))
        return lambda u, i, history: nearest_items_relation(u, i, history, part, temperature)
    if model == "rotation":
        return lambda u, i, history: rotation_relation(u, i, params["key"], params["angles"])
    if model == "multi_head":
        heads = int(options.get("heads", 2))
        matrices = memories["key"], memories["memory"]
        return lambda u, i, history: multi_head_relation(u, i, *matrices, heads)
    if model == "dpcml":
        return lambda u, i, history: dpcml_relation(u, i, history, geometry)
    raise ValueError(f"no relation of (u, i, history) for the model {model!r}")

"""Distances of a batch of triplets, and its training loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import Array, Params, as_array, reduced
from oracles.geometries import BALL, Geometry
from oracles.losses import Loss, loss_of_distances, loss_of_row
from oracles.regularizers import covariance_penalty, dpcml_penalty, is_valid, transcf_penalty
from oracles.relations import RelationFn, relation_function, transcf_relation
from oracles.rows import embedded_tables, first_vector, history_vectors


def triplet_distances(
    relation_fn: RelationFn,
    u: Array,
    items: Sequence[Array] | ArrayLike,
    history: Sequence[Array],
    copy_relation: bool = False,
    geometry: Geometry = BALL,
) -> tuple[float, Array]:
    """``D(u + r(u, i), i)`` of the first item, the positive, and of the K others, negatives.

    The relation of a negative is recomputed with it as the target; with ``copy_relation`` the
    positive's relation is reused (an option of the published HLR code).
    """
    positive, *negatives = as_array(items)
    first = first_vector(u, len(positive))
    positive_relation = relation_fn(u, positive, history)
    positive_distance = geometry.distance(first + positive_relation, positive)
    negative_distances = []
    for negative in negatives:
        relation = positive_relation if copy_relation else relation_fn(u, negative, history)
        negative_distances.append(geometry.distance(first + relation, negative))
    return positive_distance, as_array(negative_distances)


def batch_distances(
    params: Params,
    batch: Mapping[str, ArrayLike],
    model: str,
    options: Mapping[str, Any],
    geometry: Geometry = BALL,
) -> tuple[Array, Array]:
    """``D(u, i)`` of shape ``[B]`` and ``D(u, j)`` of shape ``[B, K]`` of a batch of triplets.

    The batch has ``users [B]``, ``positives [B]``, ``negatives [B, K]`` and, where the model reads
    it, ``history [B, P]``. TransCF reads ``user_neighbours [B, d]``, ``positive_neighbours [B, d]``
    and ``negative_neighbours [B, K, d]``.
    """
    user_table, item_table = embedded_tables(geometry, params)
    users, positives = np.asarray(batch["users"]), np.asarray(batch["positives"])
    negatives = np.asarray(batch["negatives"])
    copy_relation = bool(options.get("copy_relation", False))
    d_pos = np.zeros(len(users))
    d_neg = np.zeros(negatives.shape)
    for b in range(len(users)):
        u, i = user_table[users[b]], item_table[positives[b]]
        js = [item_table[j] for j in negatives[b]]
        if model == "transcf":
            nbr_u = as_array(batch["user_neighbours"])[b]
            nbr_i = as_array(batch["positive_neighbours"])[b]
            d_pos[b] = geometry.distance(u + transcf_relation(nbr_u, nbr_i), i)
            for k, j in enumerate(js):
                nbr_j = nbr_i if copy_relation else as_array(batch["negative_neighbours"])[b, k]
                d_neg[b, k] = geometry.distance(u + transcf_relation(nbr_u, nbr_j), j)
            continue
        places = np.asarray(batch["history"])[b] if "history" in batch else []
        history = history_vectors(item_table, places)
        relation = relation_function(params, model, options, geometry)
        d_pos[b], d_neg[b] = triplet_distances(
            relation, u, [i, *js], history, copy_relation, geometry
        )
    return d_pos, d_neg


def batch_loss(
    params: Params,
    batch: Mapping[str, ArrayLike],
    model: str,
    options: Mapping[str, Any],
    geometry: Geometry = BALL,
    **loss: Any,
) -> float:
    """The training loss of a batch: its triplets', TransCF's, DPCML's and CML's covariance penalty.

    ``batch["row_mask"] [B]`` (optional) drops padded rows, ``batch["negative_mask"] [B, K]``
    (optional) negatives that do not count. The mean divides TransCF's and DPCML's penalties by the
    same number of terms; the covariance penalty, on the points of the items followed by those of
    the users (all of their vectors), is added after the reduction.

    Args:
      loss: fields of `Loss`; ``covariance_weight`` and ``covariance_form``.
    """
    covariance_weight = loss.pop("covariance_weight", 0.0)
    covariance_form = loss.pop("covariance_form", "sum")
    settings = Loss(**{"num_items": len(params["item"]), **loss})
    d_pos, d_neg = batch_distances(params, batch, model, options, geometry)
    valid = [is_valid(batch, b) for b in range(len(d_pos))]
    mask = batch.get("negative_mask")
    total = loss_of_distances(d_pos, d_neg, settings, mask, valid)
    if model in ("transcf", "dpcml"):
        if model == "transcf":
            penalty = transcf_penalty(params, batch, d_pos, options, geometry)
        else:
            penalty = dpcml_penalty(params, batch, options, geometry)
        terms = _num_terms(
            settings, d_neg[valid], None if mask is None else np.asarray(mask)[valid]
        )
        total += reduced(penalty, terms, settings.reduction)
    if covariance_weight != 0.0:
        user, item = embedded_tables(geometry, params)
        points = np.concatenate([item, user.reshape(-1, item.shape[1])])
        total += covariance_weight * covariance_penalty(points, covariance_form)
    return total


def _num_terms(loss: Loss, negatives: Array, mask: Any) -> int:
    masks = np.ones(negatives.shape, bool) if mask is None else mask
    numbers = {"num_items": loss.num_items}
    return sum(
        loss_of_row(loss.name, 0.0, d, counts, **numbers)[1]
        for d, counts in zip(negatives, masks, strict=True)
    )

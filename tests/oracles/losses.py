"""Losses of a positive and its negatives, from their distances to the user."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles.arrays import as_array, reduced
from oracles.distances import squared_distance
from oracles.samplers import unseen_negatives


@dataclasses.dataclass(frozen=True)
class Loss:
    """Which loss, and its numbers.

    Attributes:
      name: hinge, hardest, warp, cpe, sfcml, contrastive, softmax, psl or softmax_at_k.
      negative_weight: of the contrastive.
      activation, scale: of PSL.
      cutoff, weight_temperature: of SL@K.
      held: distance of the positive and threshold that decide SL@K's weight, instead of its own.
      num_items: size of the catalogue, for WARP and SL@K.
      rank_floor: of WARP; see `warp_weight`.
      reduction: sum, or mean over the terms.
    """

    name: str = "hinge"
    margin: float = 0.5
    temperature: float = 0.5
    negative_weight: float = 100.0
    activation: str = "tanh"
    scale: float = 4.0
    cutoff: int = 10
    weight_temperature: float = 0.5
    held: tuple[float, float] | None = None
    num_items: int | None = None
    rank_floor: bool = True
    reduction: str = "sum"


def warp_weight(impostors: int, num_negatives: int, num_items: int, floor: bool = True) -> float:
    """``log(1 + rank)`` with ``rank = floor(I * impostors / W)`` (CML).

    The paper takes the floor; the authors' TensorFlow code (CollMetric) does not (``floor=False``).
    """
    if floor:
        return math.log1p(num_items * impostors // num_negatives)
    return math.log1p(num_items * impostors / num_negatives)


def sampled_softmax(positive: float, negatives: Sequence[float], temperature: float) -> float:
    """``-log(exp(-D_i / T) / (exp(-D_i / T) + sum_j exp(-D_j / T)))``."""
    scores = [-distance / temperature for distance in [positive, *negatives]]
    largest = max(scores)
    total = sum(math.exp(score - largest) for score in scores)
    return largest + math.log(total) - scores[0]


def pairwise_softmax(
    positive: float, negatives: Sequence[float], temperature: float, activation: str, scale: float
) -> float:
    """``log(1 + sum_j sigma(d_j)^(1 / tau))``, ``d_j = (D_i - D_j) / scale``, ``tau = T / scale``.

    PSL (Yang et al., NeurIPS 2024, section 4.1) of scores ``-D / scale``.
    """
    total = 1.0
    for distance in negatives:
        d = (positive - distance) / scale
        sigma = {
            "tanh": math.tanh(d) + 1.0,
            "atan": max(0.0, math.atan(d) + 1.0),
            "relu": max(0.0, d + 1.0),
        }[activation]
        total += sigma ** (scale / temperature)
    return math.log(total)


def top_k_threshold(
    negatives: Sequence[float], of_sample: int, num_items: int, cutoff: int
) -> float:
    """The distance of the K-th closest negative, or of the closest ``K / I`` of a sample.

    Args:
      of_sample: how many were drawn, with those that do not count.
    """
    if of_sample < num_items:
        cutoff = min(of_sample, max(1, round(cutoff * of_sample / num_items)))
    closest = sorted(negatives)
    return closest[cutoff - 1] if cutoff <= len(closest) else math.inf


def loss_of_row(
    name: str,
    positive: float,
    negatives: Sequence[float] | ArrayLike,
    mask: Sequence[bool] | ArrayLike | None = None,
    **numbers: Any,
) -> tuple[float, int]:
    """Loss of a positive with its negatives, and how many terms it is a sum of.

    - hinge: ``sum_j max(0, D_i - D_j + margin)``, as many terms as negatives.
    - hardest: the hinge of the closest negative.
    - warp (CML): that hinge times `warp_weight`, where an impostor is a negative with
      ``D_i - D_j + margin > 0``. The weight is constant in pieces, hence in the gradient.
    - cpe (CPE, eq. 10): ``sum_j max(0, g_j - margin) + max(0, margin - g_j)``, ``g_j = D_j - D_i``.
    - sfcml (SFCML): the mean of ``(margin - g_j)^2``.
    - contrastive (SimpleX): ``D_i + weight * mean_j max(0, margin - D_j)``.
    - softmax: `sampled_softmax`.
    - psl (PSL): `pairwise_softmax`.
    - softmax_at_k (SL@K): `sampled_softmax` times ``1 / (1 + exp((D_i - beta) / T_w))``, with
      ``beta`` the `top_k_threshold`.

    Args:
      negatives, mask: `[k]` distances, and which of them count; all if there is no mask.
      numbers: fields of `Loss`.
    """
    loss = Loss(name, **numbers)
    values = [float(d) for d in as_array(negatives)]
    drawn = len(values)
    if mask is not None:
        values = [d for d, counts in zip(values, np.asarray(mask), strict=True) if counts]
    hinges = [max(0.0, positive - d + loss.margin) for d in values]
    if name == "hinge":
        return sum(hinges), len(values)
    if name == "cpe":
        gaps = [d - positive for d in values]
        both = [max(0.0, gap - loss.margin) + max(0.0, loss.margin - gap) for gap in gaps]
        return sum(both), len(values)
    if name == "contrastive":
        lacking = [max(0.0, loss.margin - d) for d in values]
        return positive + loss.negative_weight * sum(lacking) / max(1, len(lacking)), 1
    if not values:
        return 0.0, 1
    if name == "hardest":
        return max(hinges), 1  # The largest hinge is that of the closest negative.
    if name == "warp":
        if loss.num_items is None:
            raise ValueError("warp needs num_items")
        impostors = sum(1 for hinge in hinges if hinge > 0.0)
        weight = warp_weight(impostors, len(values), loss.num_items, loss.rank_floor)
        return weight * max(hinges), 1
    if name == "sfcml":
        squares = [(loss.margin + positive - d) ** 2 for d in values]
        return sum(squares) / len(squares), 1
    if name == "softmax":
        return sampled_softmax(positive, values, loss.temperature), 1
    if name == "psl":
        numbers = {"activation": loss.activation, "scale": loss.scale}
        return pairwise_softmax(positive, values, loss.temperature, **numbers), 1
    if name == "softmax_at_k":
        if loss.num_items is None:
            raise ValueError("softmax_at_k needs num_items")
        near, beta = positive, top_k_threshold(values, drawn, loss.num_items, loss.cutoff)
        if loss.held is not None:
            near, beta = loss.held
        weight = 1.0 / (1.0 + math.exp((near - beta) / loss.weight_temperature))
        return weight * sampled_softmax(positive, values, loss.temperature), 1
    raise ValueError(f"unknown loss {name!r}")


def loss_of_distances(
    positive_distance: ArrayLike,
    negative_distance: ArrayLike,
    loss: Loss,
    mask: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """`loss_of_row` summed over rows, or its mean over all terms.

    The sum without a mean is the published HLR code; the mean is 0 where there is no term.

    Args:
      positive_distance, negative_distance: ``[B]``, and ``[B, K]`` to each row's negatives.
      mask: ``[B, K]`` which negatives count; all if there is none.
      weight: ``[B]`` how much each row counts, with 0 for padding; 1 if there is none.
    """
    total, terms = _sums(positive_distance, negative_distance, loss, mask, weight)
    return reduced(total, terms, loss.reduction)


def shared_negatives_loss(
    positive_distance: ArrayLike,
    negative_distance: ArrayLike,
    negatives: Sequence[int],
    seen: Sequence[Collection[int]],
    weight: ArrayLike,
    loss: Loss,
) -> tuple[float, float]:
    """Loss of a batch whose rows share their negatives, and its terms, both weighted.

    Args:
      positive_distance, negative_distance: ``[B]``, and ``[B, N]`` to each shared negative.
      negatives: ``[N]`` the items.
      seen: the items of each row's user.
      weight: ``[B]`` how much each row counts.
    """
    mask = [unseen_negatives(negatives, of_user) for of_user in seen]
    return _sums(positive_distance, negative_distance, loss, mask, weight)


def _sums(
    positive_distance: ArrayLike,
    negative_distance: ArrayLike,
    loss: Loss,
    mask: ArrayLike | None,
    weight: ArrayLike | None,
) -> tuple[float, float]:
    d_pos, d_neg = as_array(positive_distance), as_array(negative_distance)
    masks = np.ones(d_neg.shape, bool) if mask is None else np.asarray(mask)
    weights = np.ones(len(d_pos)) if weight is None else as_array(weight)
    numbers = dataclasses.asdict(loss)
    name = numbers.pop("name")
    total, terms = 0.0, 0.0
    for b in range(len(d_pos)):
        if weights[b] == 0:
            continue
        of_row, its_terms = loss_of_row(name, float(d_pos[b]), d_neg[b], masks[b], **numbers)
        total += weights[b] * of_row
        terms += weights[b] * its_terms
    return total, terms


def sampling_free_loss(
    users: ArrayLike, items: ArrayLike, liked: Sequence[Collection[int]], margin: float
) -> float:
    """Sum over users of the mean over all (liked, other) pairs of ``(margin - (D_j - D_i))^2``.

    SFCML, of rows as they are.
    """
    total = 0.0
    for user, of_user in zip(as_array(users), liked, strict=True):
        distances = [squared_distance(user, item) for item in as_array(items)]
        others = [j for j in range(len(distances)) if j not in of_user]
        pairs = [(margin - (distances[j] - distances[i])) ** 2 for i in of_user for j in others]
        total += sum(pairs) / len(pairs)
    return total

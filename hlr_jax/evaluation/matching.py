"""How often interactions with like relations have a tag in common.

The matching probability of HLR's paper (Tran et al., RecSys 2021, section 4): the tags of an
interaction are those that its item has and that are among the three most frequent ones of its user;
interactions without any are left out. The nearest relation of each, by cosine, is looked for among
all others, and matches if it has a tag in common.

Relations of one user, or to one item, are near each other for that reason alone, so the same is
computed of interactions that have neither in common; and of the items' and users' own vectors,
which know nothing of relations.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from hlr_jax.data.interactions import Interactions

TAGS_OF_USER = 3
# Interactions that are compared with all others at once.
_AT_ONCE = 512


class Matching(NamedTuple):
    """Shares of interactions that have a tag in common with another, and their standard errors.

    Attributes:
      probability: with the nearest, or with a random one.
      error: users being independent of each other, not their interactions.
      apart: with the nearest, or a random one, of another user and another item.
      apart_error: likewise.
    """

    probability: float
    error: float
    apart: float
    apart_error: float


def interaction_tags(
    tags: Bool[np.ndarray, "i t"],
    history: Interactions,
    users: Int[np.ndarray, "n"],
    items: Int[np.ndarray, "n"],
) -> Bool[np.ndarray, "n t"]:
    """Find the tags of interactions: those of the item that the user's items have most often.

    Args:
      tags: of each item.
      history: the user's items.
    """
    counts = np.zeros((history.num_users, tags.shape[1]))
    np.add.at(counts, history.users, tags[history.items])
    order = np.argsort(-counts, axis=1, kind="stable")[:, :TAGS_OF_USER]
    most = np.zeros_like(counts, dtype=bool)
    np.put_along_axis(most, order, True, axis=1)
    return tags[items] & (most & (counts > 0))[users]


def matching(
    vectors: Mapping[str, Float[np.ndarray, "n _"]],
    tags: Bool[np.ndarray, "n t"],
    users: Int[np.ndarray, "n"],
    items: Int[np.ndarray, "n"],
) -> dict[str, Matching]:
    """Compute matching probabilities by the nearest of some vectors, and by "random" ones.

    Args:
      vectors: of each interaction, by name.
      tags: of each interaction; every row has one.
    """
    unit = {name: _unit(np.asarray(x, np.float64)) for name, x in vectors.items()}
    hits: dict[str, list[Float64[np.ndarray, "b 2"]]] = {name: [] for name in (*unit, "random")}
    as_floats = tags.astype(np.float32)
    for first in range(0, len(tags), _AT_ONCE):
        rows = np.arange(first, min(first + _AT_ONCE, len(tags)))
        matches = as_floats[rows] @ as_floats.T > 0
        own = rows[:, None] == np.arange(len(tags))
        related = (users[rows, None] == users) | (items[rows, None] == items)
        for name, x in unit.items():
            cosines = x[rows] @ x.T
            found = [_nearest(cosines, matches, hidden) for hidden in (own, related)]
            hits[name].append(np.stack(found, axis=1))
        found = [_mean(matches, ~hidden) for hidden in (own, related)]
        hits["random"].append(np.stack(found, axis=1))
    return {name: _summed(np.concatenate(parts), users) for name, parts in hits.items()}


def _nearest(
    cosines: Float64[np.ndarray, "b n"],
    matches: Bool[np.ndarray, "b n"],
    hidden: Bool[np.ndarray, "b n"],
) -> Float64[np.ndarray, "b"]:
    """Tell whether the nearest one that is not hidden matches; NaN where all are hidden."""
    nearest = np.where(hidden, -np.inf, cosines).argmax(axis=1)
    found = matches[np.arange(len(matches)), nearest].astype(float)
    return np.where(hidden.all(axis=1), np.nan, found)


def _mean(
    matches: Bool[np.ndarray, "b n"], counts: Bool[np.ndarray, "b n"]
) -> Float64[np.ndarray, "b"]:
    number = counts.sum(axis=1)
    return np.where(number > 0, (matches & counts).sum(axis=1) / np.maximum(number, 1), np.nan)


def _unit(x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))


def _summed(hits: Float64[np.ndarray, "n 2"], users: Int[np.ndarray, "n"]) -> Matching:
    columns = [_mean_of_users(hits[:, column], users) for column in (0, 1)]
    return Matching(*columns[0], *columns[1])


def _mean_of_users(
    hits: Float64[np.ndarray, "n"], users: Int[np.ndarray, "n"]
) -> tuple[float, float]:
    """Average over interactions, with the standard error of clusters of users."""
    counts = np.isfinite(hits)
    if not counts.any():
        return float("nan"), float("nan")
    mean = float(hits[counts].mean())
    off = np.bincount(users[counts], hits[counts] - mean)
    return mean, float(np.sqrt((off**2).sum())) / int(counts.sum())

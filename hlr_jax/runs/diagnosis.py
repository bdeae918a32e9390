"""Tell a relation from a constant.

A model ranks by `D(u + r, i)`. Where `r` is nearly the same for all pairs, the model is CML whose
users have been moved by a constant, whatever it costs to compute, and its figures say nothing of
relations. What is measured here says so of a trained model.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float64

from hlr_jax.errors import InputError
from hlr_jax.evaluation.relation_grid import Grid, Measured, measure
from hlr_jax.parallel import processes
from hlr_jax.runs.recommender import Recommender

# Users and items that are drawn, if there are as many.
MOST_USERS, MOST_ITEMS = 256, 256
LIST_LENGTH = 10
# A replacement that moves a user's distances by less than this share of their spread is none. If
# the moves are independent of the distances and both are normal, two items change their order with
# probability arctan(share) / pi: one pair of items in 63 here.
THRESHOLD = 0.05
# By what stands for the relation: what one calls a relation that this replaces.
_KINDS = {"mean": "constant", "user_mean": "by user", "item_mean": "by item"}
_VARIES = "varies"


class NoDiagnosisError(InputError):
    """There is no relation that could be diagnosed."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """How a relation differs between pairs of users and items, and what that does to rankings.

    "Moves" are changes of `D(u + r, i)`, less their mean over the items of a user, because a shift
    of all of a user's distances changes no ranking. They are root mean squares, relative to the
    spread: the root mean square of the distances themselves, less their mean over a user's items.
    Like overlaps they are of items that a user has not seen.

    Attributes:
      users, items: how many of each were drawn; the figures are of all pairs of them.
      norm: mean `||r||`.
      deviation: root mean square of `||r - mean r||`.
      shares: of `deviation^2`, by a two-way analysis of variance: what differs between "users",
        between "items", and between "pairs" alone. They add up to 1, or are 0 without deviation.
      moves: where `r` is replaced by its "mean" over all pairs, by that of the user ("user_mean")
        or of the item ("item_mean"), or by "zero"; and where the history loses one random item
        ("without_one"; of models that read histories, and users who have one).
      overlaps: share of a user's 10 nearest items that stay there with the "mean", and with "zero",
        for the relation.
      cosines: mean cosine of two slots, of each memory.
      entropies: of attention weights, relative to those of equal ones; see `Relation.attentions`.
    """

    users: int
    items: int
    norm: float
    deviation: float
    shares: Mapping[str, float]
    moves: Mapping[str, float]
    overlaps: Mapping[str, float]
    cosines: Mapping[str, float]
    entropies: Mapping[str, float]

    @property
    def kind(self) -> str:
        """`constant`, `by user`, `by item` or `varies`; see `kind_of`."""
        return kind_of(self.moves)

    @property
    def is_constant(self) -> bool:
        return self.kind == _KINDS["mean"]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, the `kind` and the `text`, for JSON."""
        return {"kind": self.kind, "text": str(self)} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Diagnosis":
        """Rebuild what `as_dict` returned."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def __str__(self) -> str:
        kind = f"{self.kind} ({_WORDS[self.kind]} {_percent(self.moves[_REPLACED[self.kind]])}"
        parts = [f"relation: {kind} of their spread)"]
        parts.append(f"norm {_short(self.norm)}, deviation {_short(self.deviation)}")
        cosines = [f"{name} {_short(x)}" for name, x in self.cosines.items()]
        if cosines:
            parts.append(f"cosine of slots: {', '.join(cosines)}")
        entropies = [f"{name} {100 * x:.2f} %" for name, x in self.entropies.items()]
        if entropies:
            parts.append(f"entropy of weights, of the largest: {', '.join(entropies)}")
        return "; ".join(parts)


_REPLACED = {kind: name for name, kind in _KINDS.items()} | {_VARIES: "mean"}
_WORDS = {
    "constant": "replacing it by its mean moves distances by",
    "by user": "replacing it by each user's mean moves distances by",
    "by item": "replacing it by each item's mean moves distances by",
    _VARIES: "replacing it by its mean moves distances by",
}


def kind_of(moves: Mapping[str, float]) -> str:
    """Name a relation by the simplest replacement that moves distances by less than `THRESHOLD`.

    A `constant` makes a model CML whose users are moved; one `by user`, or `by item`, makes it CML
    with other rows of users, or of items. One that `varies` is more.

    Args:
      moves: as in a `Diagnosis`.
    """
    return next((kind for name, kind in _KINDS.items() if moves[name] < THRESHOLD), _VARIES)


def of_seeds(moves: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Name the relation that runs of several seeds have learned, by the means of their moves.

    Returns:
      Its kind, and a text for tables: the kind, and by how much the mean in its place moves
      distances, as in `varies (.3)`.
    """
    means = {name: float(np.mean([of[name] for of in moves])) for name in moves[0]}
    shown = f"{means['mean']:.2g}" if means["mean"] >= 1e-3 else "< .001"
    kind = kind_of(means)
    return kind, f"{kind} ({shown.replace('0.', '.', 1)})"


def diagnose(recommender: Recommender) -> Diagnosis:
    """Measure the relation of a trained model on up to 256 x 256 pairs of users and items.

    Users are drawn from those with training interactions, by the run's seed; their histories are
    drawn as for recommendations. Pairs may be of items that a user has; moves and overlaps leave
    them out, as rankings do.

    Raises:
      NoDiagnosisError: the model has no relation, tables are sharded, or users have no rankings.
    """
    model, dataset = recommender.model, recommender.dataset
    if not model.has_relation:
        name = recommender.config.model.name
        raise NoDiagnosisError(
            f"config.model.name={name!r}: has no relation to diagnose; its users stay in place"
        )
    if recommender.placement.layout.user:
        raise NoDiagnosisError(
            "config.sharding.tables='sharded': a relation is diagnosed with replicated tables only"
        )
    known = dataset.known("test")
    rng = np.random.default_rng(recommender.config.seed)
    with_items = np.flatnonzero(dataset.train.counts)
    users = np.sort(rng.permutation(with_items)[:MOST_USERS])
    items = np.sort(rng.permutation(dataset.num_items)[:MOST_ITEMS])
    grid = Grid(users, items, rng.random(len(users)))
    unseen = np.stack([~np.isin(items, known.of(user)) for user in users.tolist()])
    if not (unseen.sum(axis=1) >= 2).any():
        raise NoDiagnosisError(
            f"data set {dataset.name!r}: users have all but one of the items that were drawn, so "
            "there is no ranking to diagnose a relation by"
        )
    return summarized(measure(recommender.ranker, known, grid), unseen)


def diagnosis_in_results(recommender: Recommender) -> dict[str, Any]:
    """Diagnose a model at the end of a run, and warn of a constant relation.

    Returns:
      `diagnosis`, as plain JSON; nothing of a model that cannot be diagnosed.
    """
    try:
        found = diagnose(recommender)
    except NoDiagnosisError:
        return {}
    if found.is_constant and processes.is_first():
        is_moved = recommender.model.user_width > 0
        ranks = "as CML moved by a constant" if is_moved else "alike for all users"
        logging.warning("%s. The model ranks %s: its figures say nothing of it", found, ranks)
    return {"diagnosis": found.as_dict()}


def summarized(found: Measured, unseen: Bool[np.ndarray, "u i"]) -> Diagnosis:
    """Compute the figures of a relation that was measured.

    Args:
      unseen: which items rankings of each user are made of.
    """
    moments, distances = found.moments, found.distances
    users, items = unseen.shape
    total = max(moments.square - float(np.sum(moments.mean**2)), 0.0)
    # Replacements are compared in all rows of which two items are left to compare.
    rows = unseen.sum(axis=1) >= 2
    of_rows = {name: x[rows] for name, x in distances.items()}
    unseen = unseen[rows]
    spread = _rms(_centred(of_rows["relation"], unseen), unseen)

    def moves(name: str, counts: Bool[np.ndarray, "r i"]) -> float:
        change = of_rows[name] - of_rows["relation"]
        return _rms(_centred(change, counts), counts) / max(spread, float(np.finfo("f4").tiny))

    replaced = ["mean", "user_mean", "item_mean", "zero"]
    of_replaced = {name: moves(name, unseen) for name in replaced}
    if "without_one" in distances:
        of_replaced["without_one"] = moves("without_one", unseen & found.has_history[rows, None])
    return Diagnosis(
        users,
        items,
        moments.norm,
        float(np.sqrt(total)),
        _shares(found, total),
        of_replaced,
        {
            name: _overlap(of_rows["relation"], of_rows[name], unseen, min(LIST_LENGTH, items))
            for name in ("mean", "zero")
        },
        {name: _cosine(memory) for name, memory in found.memories.items() if len(memory) > 1},
        found.entropies,
    )


def _shares(found: Measured, total: float) -> dict[str, float]:
    """Divide the variance of relations by a two-way analysis without repetitions."""
    of_users, of_items, mean = found.moments.of_users, found.moments.of_items, found.moments.mean
    if not total:
        return {"users": 0.0, "items": 0.0, "pairs": 0.0}
    users = float(np.mean(np.sum((of_users - mean) ** 2, axis=1))) / total
    items = float(np.mean(np.sum((of_items - mean) ** 2, axis=1))) / total
    return {"users": users, "items": items, "pairs": 1 - users - items}


def _centred(
    x: Float64[np.ndarray, "u i"], counts: Bool[np.ndarray, "u i"]
) -> Float64[np.ndarray, "u i"]:
    """Take out the mean of each row, over what counts."""
    number = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return x - (x * counts).sum(axis=1, keepdims=True) / number


def _rms(x: Float64[np.ndarray, "u i"], counts: Bool[np.ndarray, "u i"]) -> float:
    return float(np.sqrt((x**2 * counts).sum() / max(counts.sum(), 1)))


def _overlap(
    one: Float64[np.ndarray, "u i"],
    two: Float64[np.ndarray, "u i"],
    counts: Bool[np.ndarray, "u i"],
    k: int,
) -> float:
    """Compute the mean share of the k smallest of a row that are the same in both."""
    lists = [
        np.argsort(np.where(counts, x, np.inf), axis=1, kind="stable")[:, :k] for x in (one, two)
    ]
    lengths = np.minimum(counts.sum(axis=1), k)
    same = [
        len(set(a[:n]) & set(b[:n])) / n for a, b, n in zip(*lists, lengths.tolist(), strict=True)
    ]
    return float(np.mean(same)) if same else 1.0


def _cosine(memory: Float64[np.ndarray, "m d"]) -> float:
    """Average the cosines of all pairs of slots; that of a slot of zeros with any is 0."""
    norms = np.linalg.norm(memory, axis=1, keepdims=True)
    directions = memory / np.where(norms > 0, norms, 1)
    number = len(memory)
    return float((directions @ directions.T)[~np.eye(number, dtype=bool)].mean())


def _short(value: float) -> str:
    """Write a number by three digits, without the zero before its point."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:#.3g}")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"

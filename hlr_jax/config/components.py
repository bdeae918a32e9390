"""The fields of `config.model`, `.geometry`, `.sampling` and `.loss`: they name registered classes.

Each of these sections holds a registered name and `options`: values for the fields of that class.
Options that are left out keep the default of the class. On the command line and in `config.json`
the options stand beside the other fields of their section, as in `config.loss.margin`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hlr_jax.config.values import Section, require, require_one_of


def _no_options() -> Any:
    # Options may hold lists, which cannot be hashed; they still count when sections are compared.
    return dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True, repr=False)
class ModelConfig(Section):
    """Which model, and the size of its embeddings."""

    # A registered relation, whose options `hlr-jax fields NAME` lists.
    name: str = "hlr"
    # d, the embedding size.
    dim: int = 100
    options: Mapping[str, Any] = _no_options()

    def check(self) -> None:
        require(self.dim >= 1, "model.dim", self.dim, "the embedding size must be at least 1")


@dataclasses.dataclass(frozen=True, repr=False)
class GeometryConfig(Section):
    """The space that users and items are embedded in."""

    # ball: rows of at most `radius` (CML). sphere: rows are divided by their length, times
    # `radius` (SFCML). lorentz: the hyperboloid of a given `curvature`.
    name: str = "ball"
    options: Mapping[str, Any] = _no_options()


@dataclasses.dataclass(frozen=True, repr=False)
class SamplingConfig(Section):
    """Which negatives a positive is compared with, and which part of the history is read."""

    # per_example: `num_negatives` are drawn for each positive. shared: `num_negatives` are drawn
    # for a batch; repeated ones count once, and items that a user has seen do not count for it.
    # full_catalog: all items that a user has not seen. `popularity_exponent`: items are drawn with
    # a probability ~ (training popularity)^popularity_exponent; 0 draws uniformly.
    negatives: str = "per_example"
    # P, the most items of a user's history that a relation reads.
    history_length: int = 50
    # Which P items of a longer history: uniform, unpopular (drawn with a probability ~
    # 1/popularity), or recent (the last before the positive, which needs
    # config.data.keep_times=True).
    history: str = "uniform"
    options: Mapping[str, Any] = _no_options()

    def check(self) -> None:
        length = self.history_length
        require(length >= 1, "sampling.history_length", length, "use 1 or more")
        kinds = ("uniform", "unpopular", "recent")
        require_one_of(self.history, kinds, "sampling.history")


@dataclasses.dataclass(frozen=True, repr=False)
class LossConfig(Section):
    """The loss of a positive and its negatives, and what is added to it."""

    # With g = (distance of the negative) - (distance of the positive) and the option `margin`:
    # hinge: sum of max(0, margin - g) over the negatives (the papers). hardest: the same for the
    # closest negative alone. warp: the same, times CML's rank weight log(1 + estimated rank).
    # cpe: |g - margin| (CPE). sfcml: mean of (margin - g)^2 (SFCML). contrastive: distance of the
    # positive, plus `negative_weight` times the mean of max(0, margin - distance of the negative)
    # (SimpleX). softmax: -log p of the positive, where p ~ exp(-distance / temperature).
    # softmax_at_k: the same, times a weight of positives among the first `cutoff` (SL@K). psl: the
    # softmax with a bent exponential (PSL). All distances are squared ones.
    name: str = "hinge"
    # sum over the batch (the published HLR code), or mean.
    reduction: str = "sum"
    # A positive is weighted by (training interactions of its user)^-user_weight_exponent: 0 weights
    # all interactions equally, 1 all users.
    user_weight_exponent: float = 0.0
    # Use the relation of the positive for its negatives too, instead of one for each of them.
    copy_relation: bool = False
    # Weight of a penalty on the covariance of all rows; 0 leaves it out.
    covariance: float = 0.0
    # off_diagonal: the entries beside the diagonal (CML, eq. 7). log_det: the divergence from the
    # identity (CPE, eq. 12).
    covariance_form: str = "off_diagonal"
    # Weight of a penalty on users that are close to other users, and items to other items
    # (DirectAU); 0 leaves it out.
    uniformity: float = 0.0
    options: Mapping[str, Any] = _no_options()

    def check(self) -> None:
        exponent = self.user_weight_exponent
        require(0 <= exponent <= 1, "loss.user_weight_exponent", exponent, "use 0 to 1")
        require_one_of(self.reduction, ("sum", "mean"), "loss.reduction")
        for field in ("covariance", "uniformity"):
            weight = getattr(self, field)
            require(weight >= 0, f"loss.{field}", weight, "use 0 or more")
        require_one_of(self.covariance_form, ("off_diagonal", "log_det"), "loss.covariance_form")

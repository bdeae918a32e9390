"""The fields of `config.evaluation`: how a trained model is measured."""

import dataclasses
from collections.abc import Sequence

from hlr_jax.config.values import Section, require, require_one_of


@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationConfig(Section):
    """How a trained model is measured."""

    # The K of metrics such as NDCG@K.
    cutoffs: Sequence[int] = (10,)
    # full: rank all items that a user has not seen; sampled: the negatives given with the data set.
    protocol: str = "full"
    # History items that a relation reads when ranking; 0 takes config.sampling.history_length.
    history_length: int = 0
    # Also report mean and standard deviation over this many disjoint random groups of users (the
    # HLR paper: 5 groups of 10,000); 0 leaves them out.
    cohorts: int = 0
    # Users of each of these groups.
    cohort_size: int = 10_000
    # Resamples of the bootstrap 95 % interval; 0 leaves it out.
    bootstrap: int = 1000
    # Also report the values of each user, in the order of the data set's ids, to compare two models
    # user by user.
    per_user: bool = False
    # Users that are ranked together.
    batch_size: int = 8192

    def check(self) -> None:
        require(bool(self.cutoffs), "evaluation.cutoffs", self.cutoffs, "give at least one cutoff")
        require(
            all(k >= 1 for k in self.cutoffs), "evaluation.cutoffs", self.cutoffs, "use 1 or more"
        )
        require_one_of(self.protocol, ("full", "sampled"), "evaluation.protocol")
        for field in ("history_length", "cohorts", "bootstrap"):
            value = getattr(self, field)
            require(value >= 0, f"evaluation.{field}", value, "use 0 or more")
        for field in ("cohort_size", "batch_size"):
            value = getattr(self, field)
            require(value >= 1, f"evaluation.{field}", value, "use 1 or more")

"""Whether attention depends on what an interaction is of: a genre, a rating, a time.

The measure is the mutual information, in bits, between the group of an interaction and a memory
slot that is drawn by its weights; with groups of equal size it is the Jensen-Shannon divergence
between their mean weights. It is never below 0, so it says nothing by itself: interactions of one
user, or of one item, have weights that are alike, so any groups that keep them together differ. It
is therefore compared with what it is when groups are permuted, in such a way that what belongs
together stays together. Users choose items, by genre too, so that genres differ wherever users do;
what users add to the weights is taken out before.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float64, Int

# The smallest p-value is 1 / (1 + this).
PERMUTATIONS = 199
# Passes in which the parts of users and items are taken out, one after the other.
_PASSES = 20


class Dependence(NamedTuple):
    """How much groups of interactions say of the slots that are attended to.

    Attributes:
      bits: mutual information of group and slot.
      tested: the same where weights have lost what users add to them, if groups are of items; what
        items add, if groups are of users; else both, each for itself. For high ratings are given
        by some users and to some items, which is not what an attention to ratings would be.
        Nothing is left of users, or items, that have a single interaction.
      permuted: mean of `tested` where groups are permuted.
      p: share of permutations that reach `tested`, itself counted as one.
      among: what groups were permuted among: "items" where all interactions of an item are in the
        same groups, which are dealt out to the items anew; "users" likewise; else "items of users",
        the interactions of each user.
    """

    bits: float
    tested: float
    permuted: float
    p: float
    among: str


def information(joint: Float64[np.ndarray, "g m"]) -> float:
    """Compute the mutual information of rows and columns in bits, of counts or probabilities."""
    joint = joint / joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    terms = np.where(joint > 0, joint, 1) / np.where(joint > 0, apart, 1)
    return max(0.0, float((joint * np.log2(terms)).sum()))


def dependence(
    weights: Float64[np.ndarray, "n m"],
    shares: Float64[np.ndarray, "n g"],
    users: Int[np.ndarray, "n"],
    items: Int[np.ndarray, "n"],
    seed: int = 0,
) -> Dependence:
    """Measure how much groups say of slots, and permute them.

    Args:
      weights: of slots, rows that add up to 1.
      shares: of groups, rows that add up to 1.
      users, items: of each interaction.
    """
    rng = np.random.default_rng(seed)
    bits = information(shares.T @ weights)
    of_items, of_users = _Blocks(items), _Blocks(users)
    for among, blocks, others in (("items", of_items, of_users), ("users", of_users, of_items)):
        if blocks.share(shares):
            weights = others.centred(weights)
            tested = information(shares.T @ weights)
            draw = blocks.dealt_out(weights, shares, rng)
            return Dependence(bits, tested, *_compared(tested, draw), among)
    for _ in range(_PASSES):
        weights = of_items.centred(of_users.centred(weights))
    tested = information(shares.T @ weights)
    draw = of_users.permuted_within(weights, shares, rng)
    return Dependence(bits, tested, *_compared(tested, draw), "items of users")


def _compared(bits: float, draw: Callable[[], Float64[np.ndarray, "g m"]]) -> tuple[float, float]:
    """Return the mean information of permutations, and the share of them that reach `bits`."""
    found = np.array([information(draw()) for _ in range(PERMUTATIONS)])
    # Equal sums that are added up in another order differ in their last digits.
    reached = int(np.count_nonzero(found >= bits * (1 - 1e-9)))
    return float(found.mean()), (1 + reached) / (1 + PERMUTATIONS)


class _Blocks:
    """Interactions of the same user, or of the same item."""

    def __init__(self, ids: Int[np.ndarray, "n"]) -> None:
        _, self.first, self.of = np.unique(ids, return_index=True, return_inverse=True)
        entries = np.ones(len(ids)), (self.of, np.arange(len(ids)))
        self.sum = scipy.sparse.csr_array(entries)

    def share(self, shares: Float64[np.ndarray, "n g"]) -> bool:
        """Tell whether all interactions of a block are in the same groups."""
        return bool((shares == shares[self.first][self.of]).all())

    def centred(self, weights: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
        """Let the mean weights of each block be those of all."""
        means = (self.sum @ weights) / self.sum.sum(axis=1)[:, None]
        return np.asarray(weights - means[self.of] + weights.mean(axis=0))

    def dealt_out(
        self,
        weights: Float64[np.ndarray, "n m"],
        shares: Float64[np.ndarray, "n g"],
        rng: np.random.Generator,
    ) -> Callable[[], Float64[np.ndarray, "g m"]]:
        """Give the groups of each block to a random other one."""
        of_blocks, sums = shares[self.first], self.sum @ weights
        return lambda: rng.permutation(of_blocks).T @ sums

    def permuted_within(
        self,
        weights: Float64[np.ndarray, "n m"],
        shares: Float64[np.ndarray, "n g"],
        rng: np.random.Generator,
    ) -> Callable[[], Float64[np.ndarray, "g m"]]:
        """Permute groups among the interactions of each block."""
        of_ordered = weights[np.argsort(self.of, kind="stable")]
        # Most rows are of one group only.
        few = scipy.sparse.csr_array(shares)
        return lambda: few[np.argsort(self.of + rng.random(len(shares)))].T @ of_ordered

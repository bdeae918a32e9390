"""What filters left out of the interactions that were read, so that a run can say so."""

from typing import NamedTuple

import numpy as np


class Filtered(NamedTuple):
    """How many interactions each filter left out, one after another.

    Attributes:
      read: interactions before any filter; 0 if nobody knows, as of data of an earlier version.
      low: were rated below `min_rating`.
      repeated: were of a pair of user and item that was there already.
      rare: were of users with fewer than `core` or items with fewer than `item_core`.
      rare_users: the users without any interaction after that.
      rare_items: the items without any.
      unknown: were of held-out users with items that no training user has.
      full: were of users who have every item, so that there is nothing to tell them apart from.
      full_users: how many users these are.
    """

    read: int = 0
    low: int = 0
    repeated: int = 0
    rare: int = 0
    rare_users: int = 0
    rare_items: int = 0
    unknown: int = 0
    core: int = 0
    item_core: int = 0
    full: int = 0
    full_users: int = 0
    min_rating: float = 0.0

    def __str__(self) -> str:
        if not self.read:
            return ""
        by_rule = {
            f"{self.low:,} rated below {self.min_rating:g}": self.low,
            f"{self.repeated:,} repeated": self.repeated,
            f"{self.rare:,} {self._of_rare()}": self.rare,
            f"{self.unknown:,} of held-out users with items that no other user has": self.unknown,
            f"{self.full:,} of users who have every item ({self.full_users:,} users)": self.full,
        }
        parts = [words for words, number in by_rule.items() if number]
        return f"of {self.read:,} interactions read: {', '.join(parts) or 'nothing'}"

    def _of_rare(self) -> str:
        gone = f"({self.rare_users:,} users, {self.rare_items:,} items)"
        if self.core == self.item_core:
            return f"of users and items with fewer than {self.core} {gone}"
        return (
            f"of users with fewer than {self.core}, items with fewer than {self.item_core} {gone}"
        )

    def to_array(self) -> np.ndarray:
        """Return the numbers `[n]` as float64, which has room for any count."""
        return np.array(self, np.float64)

    @classmethod
    def from_array(cls, array: np.ndarray | None) -> "Filtered":
        """Read what `to_array` has made; nothing is known where there is none."""
        if array is None or array.shape != (len(cls._fields),):
            return cls()
        *counts, min_rating = array.tolist()
        return cls(*map(int, counts))._replace(min_rating=min_rating)

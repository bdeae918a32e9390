"""Interactions of users with items, in compressed sparse row form."""

import dataclasses

import numpy as np

from hlr_jax.errors import InputError

# Programs on devices use int32, JAX's default integer type, for ids and positions.
MAX_SIZE = 2**31 - 1

# Of interactions of which it is not known when they were.
NO_TIMES = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Interactions:
    """A set of (user, item) pairs in compressed sparse row form.

    Attributes:
      offsets: `[U + 1]` int64; user `u` owns `items[offsets[u]:offsets[u + 1]]`.
      items: `[N]` int32 item ids, strictly increasing within a user.
      num_items: the number of items `I`; every item id is smaller.
      times: `[N]` int32, larger where a pair is later; `[0]` where that is not known. Those of
        several parts of a data set can be compared.
    """

    offsets: np.ndarray
    items: np.ndarray
    num_items: int
    times: np.ndarray = dataclasses.field(default_factory=lambda: NO_TIMES)

    def __post_init__(self) -> None:
        _check_times(self.times, len(self.items))

    @classmethod
    def from_pairs(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        num_users: int,
        num_items: int,
        times: np.ndarray = NO_TIMES,
    ) -> "Interactions":
        """Build interactions from the pairs `(users[n], items[n])`, in any order.

        Args:
          users: `[N]` integers below `num_users`.
          items: `[N]` integers below `num_items`.
          num_users: the number of users `U`.
          num_items: the number of items `I`.
          times: `[N]` int32, or `[0]` where they are not known.

        Returns:
          Interactions with each pair once, at its first time, though it may have been given several
          times.

        Raises:
          InputError: an id is out of range, there are more than 2^31 - 1 users, items or pairs, or
            times of some pairs only.
        """
        _check_times(times, len(users))
        users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
        for kind, ids, bound in (("user", users, num_users), ("item", items, num_items)):
            if bound > MAX_SIZE:
                raise InputError(f"{bound} {kind}s: at most {MAX_SIZE} are supported")
            if ids.size and (ids.min() < 0 or ids.max() >= bound):
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise InputError(f"{kind} id {wrong} is outside 0..{bound - 1}")
        pairs = users * num_items + items
        if len(times):
            order = np.lexsort((times, pairs))
            pairs, times = pairs[order], np.asarray(times)[order]
        else:
            # np.unique would do the same, but hashes integers first and takes many times longer.
            pairs = np.sort(pairs)
        if pairs.size:
            is_first = np.append(True, pairs[1:] != pairs[:-1])
            pairs, times = pairs[is_first], some(times, is_first)
        if pairs.size > MAX_SIZE:
            raise InputError(f"{pairs.size} interactions: at most {MAX_SIZE} are supported")
        counts = np.bincount(pairs // num_items, minlength=num_users) if pairs.size else 0
        offsets = np.zeros(num_users + 1, np.int64)
        offsets[1:] = np.cumsum(np.broadcast_to(counts, num_users))
        return cls(offsets, (pairs % num_items).astype(np.int32), num_items, times)

    @classmethod
    def none(cls, num_users: int, num_items: int) -> "Interactions":
        """Return no interactions, of so many users with so many items."""
        return cls(np.zeros(num_users + 1, np.int64), np.zeros(0, np.int32), num_items)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_times(self) -> bool:
        """Whether it is known which pairs came first; so too where there is none."""
        return len(self.times) == len(self.items)

    @property
    def users(self) -> np.ndarray:
        """`[N]` int32: the user of each entry of `items`."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.counts)

    @property
    def codes(self) -> np.ndarray:
        """`[N]` int64, increasing: a number for each pair, `user * num_items + item`."""
        return self.users.astype(np.int64) * self.num_items + self.items

    @property
    def counts(self) -> np.ndarray:
        """`[U]` int64: the number of interactions of each user."""
        return np.diff(self.offsets)

    @property
    def popularity(self) -> np.ndarray:
        """`[I]` int64: the number of interactions of each item."""
        return np.bincount(self.items, minlength=self.num_items)

    def part(self, users: slice) -> "Interactions":
        """Select the interactions of consecutive users, who are numbered from 0 in the result.

        Args:
          users: start and stop, as for a list of users; a step is not supported.
        """
        first, stop, _ = users.indices(self.num_users)
        if (first, stop) == (0, self.num_users):
            return self
        offsets = np.array(self.offsets[first : max(first, stop) + 1])
        items, times = (np.array(x[offsets[0] : offsets[-1]]) for x in (self.items, self.times))
        return Interactions(offsets - offsets[0], items, self.num_items, times)

    def of(self, user: int) -> np.ndarray:
        """Return the items of a user, increasing."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def of_rows(self, rows: np.ndarray) -> "Interactions":
        """Select the interactions of users `rows [n]`, increasing, who are numbered from 0."""
        chosen = np.zeros(self.num_users, bool)
        chosen[rows] = True
        offsets = np.append(0, np.cumsum(self.counts[chosen]))
        return self._kept(offsets, np.repeat(chosen, self.counts))

    def of_users(self, chosen: np.ndarray) -> "Interactions":
        """Keep the interactions of the users `chosen [U]` (true or false), of the same users."""
        counts = np.where(chosen, self.counts, 0)
        return self._kept(np.append(0, np.cumsum(counts)), np.repeat(chosen, self.counts))

    def _kept(self, offsets: np.ndarray, kept: np.ndarray) -> "Interactions":
        return Interactions(offsets, self.items[kept], self.num_items, some(self.times, kept))

    def union(self, other: "Interactions") -> "Interactions":
        """Return the pairs that are in one or both of two sets of interactions.

        Times are known of the result if they are of both.

        Raises:
          ValueError: the two have different numbers of users or items.
        """
        if (self.num_users, self.num_items) != (other.num_users, other.num_items):
            raise ValueError("interactions of different users or items cannot be joined")
        if not len(other):
            return self
        are_timed = self.has_times and other.has_times
        return Interactions.from_pairs(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            self.num_users,
            self.num_items,
            np.concatenate([self.times, other.times]) if are_timed else NO_TIMES,
        )

    def without(self, other: "Interactions") -> "Interactions":
        """Return the pairs that are not in another set, of the same users and items."""
        kept = ~np.isin(self.codes, other.codes)
        counts = np.bincount(self.users[kept], minlength=self.num_users)
        return self._kept(np.append(0, np.cumsum(counts)), kept)

    def in_order(self) -> np.ndarray:
        """Sort all pairs by user and time, or where that is not known by id: their `[N]` places."""
        if not self.times.size:
            return np.arange(len(self))
        return np.lexsort((self.times, self.users))

    def oldest_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Find each user's items in order of time, of equal times in that of ids.

        Returns:
          `[N]` int32 places in the user's row, from the oldest on, and `[N]` int32 where each item
          stands among these; both `[0]` where times are not known.
        """
        if not self.has_times:
            return NO_TIMES, NO_TIMES
        places, starts = self.in_order(), np.repeat(self.offsets[:-1], self.counts)
        ranks = np.empty_like(places)
        ranks[places] = np.arange(len(places))
        return (places - starts).astype(np.int32), (ranks - starts).astype(np.int32)


def some(times: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Select times `[N]`, which may be unknown `[0]`, by rows (numbers, or true or false)."""
    return times[rows] if times.size else NO_TIMES


def _check_times(times: np.ndarray, count: int) -> None:
    if len(times) not in (0, count):
        raise InputError(f"{len(times)} times for {count} interactions; give one for each, or none")

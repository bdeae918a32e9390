"""A data set: interactions split into train, validation and test, and whom their numbers mean."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hlr_jax import facts
from hlr_jax.data.filtered import Filtered
from hlr_jax.data.interactions import NO_TIMES, Interactions
from hlr_jax.errors import InputError

if TYPE_CHECKING:
    from typing import Unpack

    from hlr_jax.data.frames import Rules

# What the digest depends on, besides ids and features.
DIGESTED = ("train", "valid", "given")
# What `Dataset.given` is by default; each data set puts its own size in its place.
_NOTHING = Interactions.none(0, 0)
_UNFILTERED = Filtered()


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Interactions split into train, validation and test, and what user and item ids stand for.

    There are `U` users and `I` items, numbered from 0. Users without a training interaction are
    kept: they are never trained on, and are ranked with their initial vector.

    Attributes:
      name: of the data set.
      train: what a model is trained on.
      valid: what models and epochs are selected by; may be empty.
      test: what a model is evaluated on.
      user_ids: `[U]` raw ids of the users, integers or strings, increasing. `from_frame` and
        `from_csr` take them in any order.
      item_ids: `[I]` raw ids of the items, increasing.
      item_titles: `[I]` readable titles, "" if unknown; None if no item has one.
      given_negatives: `[U, n]` int32 items to rank a user's test item among, padded with -1; None
        if the data set comes without them.
      features: `[I, F]` float32 features of the items; None if the model needs none.
      given: interactions of held-out users that are known when these are ranked, and never trained
        on (`splits.held_out_users`); none where every user is trained on.
      filtered: what filters left out.
    """

    name: str
    train: Interactions
    valid: Interactions
    test: Interactions
    user_ids: np.ndarray
    item_ids: np.ndarray
    item_titles: np.ndarray | None = None
    given_negatives: np.ndarray | None = None
    features: np.ndarray | None = None
    given: Interactions = _NOTHING
    filtered: Filtered = _UNFILTERED
    # Popularity and digest as they were stored with prepared data, so that they are known without
    # reading all of it; before them, the ids, train, valid, given and features of which they are.
    _stored: tuple[tuple[Any, ...], np.ndarray, str] | None = dataclasses.field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        if self.given is _NOTHING:
            object.__setattr__(self, "given", Interactions.none(self.num_users, self.num_items))
        for part in ("valid", "test", "given"):
            found = getattr(self, part)
            if (found.num_users, found.num_items) != (self.num_users, self.num_items):
                raise InputError(
                    f"data set {self.name!r}: {part} has {found.num_users} users and "
                    f"{found.num_items} items, train {self.num_users} and {self.num_items}"
                )
            if self.train.times.size and not found.has_times:
                raise InputError(
                    f"data set {self.name!r}: it is known when interactions of train were, and not "
                    f"when those of {part}; give times of all parts, or of none"
                )
        _check_ids(self.name, "user", self.user_ids, self.num_users)
        _check_ids(self.name, "item", self.item_ids, self.num_items)
        titles = self.item_titles
        if titles is not None and titles.shape != (self.num_items,):
            raise InputError(
                f"data set {self.name!r}: item_titles has the shape {titles.shape}; give one to "
                f"each of {self.num_items} items"
            )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str = "user",
        item: str = "item",
        rating: str | None = None,
        timestamp: str | None = None,
        **rules: "Unpack[Rules]",
    ) -> "Dataset":
        """Make a data set of a data frame with an interaction in each row.

        Args:
          frame: of pandas or polars, or whatever exports Arrow or the data frame interchange
            protocol; or a dict of columns.
          user, item: columns of ids: integers, texts, UUIDs or dates, in any order. Texts stay
            texts. A pair that stands in several rows counts once, with its highest rating and
            earliest time.
          rating: column of numbers that `min_rating` filters.
          timestamp: column of times that a split by time reads, or a model with `keep_times`:
            numbers, datetimes or ISO 8601.
          rules: `min_rating`, `core`, `item_core`, `split` (None trains on everything),
            `valid_fraction`, `test_fraction`, `split_seed`, `keep_times`, as in `config.data`.

        Raises:
          InputError: a column is missing, a value cannot be used, or nothing is left to train on.
        """
        from hlr_jax.data import frames  # Which is made of data sets.

        named = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
        given = {role: column for role, column in named.items() if column is not None}
        return frames.from_frame(frame, given, rules)

    @classmethod
    def from_csr(
        cls, matrix: Any, user_ids: Any = None, item_ids: Any = None, **rules: "Unpack[Rules]"
    ) -> "Dataset":
        """Make a data set of a sparse matrix, whose entries are ratings above 0.

        Rows and columns without an entry are left out.

        Args:
          matrix: `[users, items]`, of SciPy.
          user_ids, item_ids: of its rows and columns, in any order; numbers from 0 if left out.
          rules: see `from_frame`.

        Raises:
          InputError: ids do not fit, an entry is zero, negative or not finite, or nothing is left
            to train on.
        """
        from hlr_jax.data import frames

        return frames.from_csr(matrix, user_ids, item_ids, rules)

    def with_titles(self, titles: Any) -> "Dataset":
        """Return the data set with titles of items; items without one get "".

        Args:
          titles: by id, a mapping or a series of pandas.

        Raises:
          InputError: they are no mapping, or none is of an item of the data set.
        """
        from hlr_jax.data import frames

        return frames.with_titles(self, titles)

    def __repr__(self) -> str:
        return facts.as_text(f"Dataset {self.name!r}", self.facts())

    def _repr_html_(self) -> str:
        return facts.as_html(f"Dataset {self.name!r}", self.facts())

    def facts(self) -> dict[str, str]:
        """Say what the data set holds, in texts by name."""
        more = {
            "with titles": self.item_titles is not None,
            f"{self.num_features} features": self.features is not None,
            "with negatives to be ranked among": self.given_negatives is not None,
        }
        sizes = ", ".join(f"{size:,} {part}" for part, size in self.split_sizes.items())
        return {
            "users": f"{self.num_users:,} ({facts.some(self.user_ids[:4].tolist())})",
            "items": ", ".join(
                [
                    f"{self.num_items:,} ({facts.some(self.item_ids[:4].tolist())})",
                    *(words for words, is_so in more.items() if is_so),
                ]
            ),
            "interactions": sizes,
            "left out": str(self.filtered),
        }

    def _stored_values(self) -> tuple[np.ndarray, str] | None:
        """Return stored popularity and digest, unless what they belong to has been replaced."""
        if self._stored is None:
            return None
        belongs_to, popularity, digest = self._stored
        of_parts = (getattr(self, part) for part in DIGESTED)
        now = (self.user_ids, self.item_ids, *of_parts, self.features)
        is_same = all(a is b for a, b in zip(belongs_to, now, strict=True))
        return (popularity, digest) if is_same else None

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def num_features(self) -> int:
        """The number of features `F`; 0 without features."""
        return 0 if self.features is None else int(self.features.shape[1])

    def joined(self) -> "Dataset":
        """Return the data set with validation interactions moved to training.

        What is given of users who validate moves with them; of those who test it stays given.
        """
        validates = self.valid.counts > 0
        train = self.train.union(self.valid).union(self.given.of_users(validates))
        nothing = Interactions.none(self.num_users, self.num_items)
        given = self.given.of_users(~validates)
        return dataclasses.replace(self, train=train, valid=nothing, given=given, _stored=None)

    def known(self, split: str, users: slice = slice(None)) -> Interactions:
        """Return what is known of users when a split, `valid` or `test`, is ranked.

        It is what they have in training and what is given of them; for test, validation too.

        Args:
          users: consecutive ones, numbered from 0 in the result.
        """
        known = self.train.part(users).union(self.given.part(users))
        return known.union(self.valid.part(users)) if split == "test" else known

    def later(self, count: int) -> np.ndarray:
        """Number further interactions as later than all that are known; `[0]` without times."""
        if not self.train.times.size:
            return NO_TIMES
        return np.arange(self._now, self._now + count, dtype=np.int32)

    @functools.cached_property
    def _now(self) -> int:
        known = (getattr(self, part).times for part in ("train", "valid", "test", "given"))
        return 1 + max(int(times.max(initial=-1)) for times in known)

    @property
    def split_sizes(self) -> dict[str, int]:
        """The number of interactions in train, valid and test, and in given if there are any."""
        parts = ("train", "valid", "test", *(("given",) if len(self.given) else ()))
        return {part: len(getattr(self, part)) for part in parts}

    def item_names(self, column: str = "item") -> dict[str, np.ndarray]:
        """Return columns by row of an item: its id, and `title` if the data set has titles."""
        ids = {column: self.item_ids}
        return ids if self.item_titles is None else ids | {"title": self.item_titles}

    def user_rows(self, raw_ids: Sequence[Any]) -> np.ndarray:
        """Find the numbers `[n]` of the users with these raw ids; -1 where there is none."""
        return _rows_of(raw_ids, self.user_ids)

    def item_rows(self, raw_ids: Sequence[Any]) -> np.ndarray:
        """Find the numbers `[n]` of the items with these raw ids; -1 where there is none."""
        return _rows_of(raw_ids, self.item_ids)

    def user_index(self, raw_id: Any) -> int:
        """Return the number of the user with this raw id.

        Raises:
          InputError: there is no such user.
        """
        row = int(self.user_rows([raw_id])[0])
        if row < 0 and isinstance(raw_id, list | tuple | np.ndarray):
            raise InputError(f"user {raw_id!r}: give one id, not several")
        if row < 0:
            like = ", ".join(str(user) for user in self.user_ids[:3])
            raise InputError(
                f"user {raw_id!r} is not in data set {self.name!r}; "
                f"its {self.num_users} user ids look like {like}"
            )
        return row

    @property
    def popularity(self) -> np.ndarray:
        """`[I]` int64: the number of training interactions of each item."""
        stored = self._stored_values()
        return stored[0] if stored else self.train.popularity

    @property
    def digest(self) -> str:
        """A hash of all that trained parameters depend on: ids, train, valid, given, features.

        The order in which these came is a part of it where it is kept.
        """
        if stored := self._stored_values():
            return stored[1]
        sha = hashlib.sha256()
        for array in (self.user_ids, self.item_ids):
            sha.update("\0".join(map(str, array.tolist())).encode())
        parts = (self.train, self.valid, *([self.given] if len(self.given) else []))
        for part in parts:
            sha.update(part.offsets.tobytes() + part.items.tobytes())
        # The order in which these came, whatever else came between them.
        order = np.argsort(np.concatenate([part.times for part in parts]), kind="stable")
        sha.update(order.astype(np.int64).tobytes())
        if self.features is not None:
            sha.update(self.features.tobytes())
        return sha.hexdigest()

    @property
    def test_digest(self) -> str:
        """A hash of what a test is on besides: the test interactions and given negatives."""
        sha = hashlib.sha256(self.test.offsets.tobytes() + self.test.items.tobytes())
        if self.given_negatives is not None:
            sha.update(self.given_negatives.tobytes())
        return sha.hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        """Both hashes, as results of a run keep them."""
        return {"data": self.digest, "test": self.test_digest}


def _rows_of(raw_ids: Sequence[Any], ids: np.ndarray) -> np.ndarray:
    """Find where raw ids stand in increasing ones; an id of another type is converted to theirs."""
    if not len(ids):
        return np.full(len(raw_ids), -1, np.int32)
    if ids.dtype.kind == "U":
        wanted = np.array([str(x) for x in raw_ids], np.str_)
    else:
        wanted = np.array([_integer(x) for x in raw_ids], np.int64)
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[places] == wanted, places, -1).astype(np.int32)


def _integer(raw_id: Any) -> int:
    """Convert an id; one that is no integer is among none, as -1 is."""
    with contextlib.suppress(ValueError):
        number = int(raw_id) if isinstance(raw_id, int | str | np.integer) else -1
        return number if 0 <= number < 2**63 else -1
    return -1


def _check_ids(name: str, kind: str, ids: np.ndarray, count: int) -> None:
    """Raise InputError where rows cannot be looked up by id."""
    if ids.shape != (count,):
        raise InputError(
            f"data set {name!r}: {kind}_ids has the shape {ids.shape}; give one to each of "
            f"{count} {kind}s"
        )
    if ids.dtype.kind not in "iuU":
        raise InputError(f"data set {name!r}: {kind}_ids are {ids.dtype}; use integers or text")
    if count and not (ids[1:] > ids[:-1]).all():
        raise InputError(
            f"data set {name!r}: {kind}_ids do not increase, so that nobody would be found by id; "
            "Dataset.from_frame and Dataset.from_csr take ids in any order"
        )


def check_trainable(dataset: Dataset) -> None:
    """Check that a model can be trained on a data set.

    Raises:
      InputError: train is empty, features do not fit the items, or a user has interacted
        with every item, so that there is no negative to draw.
    """
    if not len(dataset.train):
        raise InputError(
            f"data set {dataset.name!r}: no user has a train interaction; leave more to train on"
        )
    found = dataset.features
    if found is not None and (found.ndim != 2 or len(found) != dataset.num_items):
        raise InputError(
            f"data set {dataset.name!r}: features have shape {found.shape}; give a row to each of "
            f"its {dataset.num_items} items"
        )
    # These sums are cheap, and never too low: they count an item that is in two parts twice.
    counts = dataset.train.counts + dataset.given.counts + dataset.valid.counts
    for user in np.flatnonzero(counts >= dataset.num_items).tolist():
        seen = len(dataset.known("test", slice(user, user + 1)))
        if seen >= dataset.num_items:
            raise InputError(
                f"data set {dataset.name!r}: user {dataset.user_ids[user]} has all "
                f"{dataset.num_items} items, so no negative can be drawn; remove the user"
            )

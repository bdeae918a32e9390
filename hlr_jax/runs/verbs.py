"""What people ask of a trained model: recommendations, scores, similar items; by ids, as frames.

`Verbs` turns ids into rows and back, decides what a user may be recommended, and leaves the ranking
to a model (`runs.recommender`) or a baseline (`baselines.recommender`).
"""

import abc
import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, Unpack

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hlr_jax.data.columns import columns
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.requests import Ranked

Id = int | str
# Ids in any sequence, of NumPy and of frames too; `listed` checks them.
Ids = Any
_UNKNOWN = ("error", "popular")


class Filters(TypedDict, total=False):
    """What may be recommended.

    Attributes:
      items: candidates; all items that were trained on if left out.
      exclude: items that nobody is recommended; they may be unknown, as those of a list for many
        models.
      filter_seen: whether items that a user is known to have are left out; true if left out.
      seen: what users are known to have, instead of what the data set says (training, validation
        and test): a mapping from users to lists of items, or a frame with columns `user` and
        `item`. Users that are not in it have nothing. It is their history too, the oldest first.
      unknown: of users without a training interaction: `error`, or `popular` for the items with
        the most of them.
    """

    items: Ids
    exclude: Ids
    filter_seen: bool
    seen: Any
    unknown: str


class FiltersForHistory(TypedDict, total=False):
    """What may be recommended to somebody by what they have; see `Filters`.

    Attributes:
      items, exclude, filter_seen: as of users; what is seen is the history.
      unknown: of ids of items that were not trained on: `error`, or `popular` to leave them out,
        and to list the items with the most training interactions where nothing is left.
    """

    items: Ids
    exclude: Ids
    filter_seen: bool
    unknown: str


class Verbs(abc.ABC):
    """A trained model or a fitted baseline with its data set, as people use it."""

    dataset: Dataset

    @abc.abstractmethod
    def best(
        self, rows: Int[np.ndarray, "u"], k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find the k best of what is ranked for users, -1 and -inf where fewer remain.

        Args:
          of: what they have is `self.everything` most of the time.
        """

    @abc.abstractmethod
    def best_for_somebody(
        self, k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "1 k"], Float[np.ndarray, "1 k"]]:
        """Find the k best for one who is not among the users; `of` is of them alone.

        Raises:
          InputError: nothing can be ranked for those who are not users.
        """

    @abc.abstractmethod
    def pair_scores(
        self, rows: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n"]:
        """Score pairs; an item that is in its user's history is left out of it."""

    @abc.abstractmethod
    def nearest_items(
        self, rows: Int[np.ndarray, "n"], k: int
    ) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Find the k trained items most like each of these, themselves left out."""

    @property
    def known_users(self) -> np.ndarray:
        """Ids of the users for whom it ranks without `unknown`."""
        return self.dataset.user_ids[self._is_known]

    @property
    def _is_known(self) -> Bool[np.ndarray, "u"]:
        return np.asarray(self._that_count(self.everything).counts > 0)

    def _that_count(self, known: Interactions) -> Interactions:
        """Say by which interactions it ranks for a user, if `known` is what users have."""
        return known if self.knows_untrained_users else self.dataset.train

    @property
    def knows_untrained_users(self) -> bool:
        """Whether users without training interactions are ranked for, by what they have."""
        return False

    @functools.cached_property
    def everything(self) -> Interactions:
        """All that users are known to have: training, what is given, validation and test."""
        return self.dataset.known("test").union(self.dataset.test)

    @functools.cached_property
    def trained_items(self) -> Bool[np.ndarray, "i"]:
        """Which items have a training interaction. Others have a random row, and are not ranked."""
        return np.asarray(self.dataset.popularity > 0)

    @functools.cached_property
    def _nothing(self) -> Interactions:
        return Interactions.none(self.dataset.num_users, self.dataset.num_items)

    # ---------------------------------------------------------------------------------------------
    # The verbs.

    def recommend(self, users: Ids, k: int = 10, **filters: Unpack[Filters]) -> pl.DataFrame:
        """Recommend the k best items that a user is not known to have.

        Args:
          users: ids as the data set has them.
          k: items per user; fewer only where no more are left.
          filters: `items`, `exclude`, `filter_seen`, `seen`, `unknown`; see `Filters`.

        Returns:
          Columns `user`, `rank` (from 1), `item`, `title` (if the data set has titles) and `score`
          (of a model minus the squared distance; larger is better).

        Raises:
          InputError: an unknown user or item, k below 1 or above the catalogue's size.
        """
        ids = listed("users", users)
        self._check_k(k)
        _check_names(filters, Filters)
        seen = filters.get("seen")
        known = self.everything if seen is None else self._given(seen)
        rows = self._rows(ids, known, filters.get("unknown", "error"))
        allowed = self._allowed(filters.get("items"), filters.get("exclude"))
        hidden = known if filters.get("filter_seen", True) else self._nothing
        best = np.full((len(ids), k), -1, np.int32), np.full((len(ids), k), -np.inf, np.float32)
        is_known = rows >= 0
        if is_known.any():
            found = self.best(rows[is_known], k, Ranked(known, hidden, allowed))
            for all_users, of_known in zip(best, found, strict=True):
                all_users[is_known] = of_known
        if not is_known.all():
            best[0][~is_known], best[1][~is_known] = self._popular(k, allowed)
        return self._lists("user", ids, best, self.dataset.item_names())

    def recommend_for(
        self, history: Ids, k: int = 10, **filters: Unpack[FiltersForHistory]
    ) -> pl.DataFrame:
        """Recommend items to somebody who is not among the users, by what they have.

        A model with rows of users fits one against its tables as they are; nothing is kept.

        Args:
          history: ids of items, the oldest first for a model that reads which came last; one that
            stands there twice counts where it stands first.
          filters: `items`, `exclude`, `filter_seen`, `unknown`; see `FiltersForHistory`.

        Returns:
          Columns `rank`, `item`, `title` (if the data set has titles) and `score`.

        Raises:
          InputError: an unknown item, or one that was not trained on; no item, for a model; or a
            baseline that ranks for the users that it was fitted on only.
        """
        _check_names(filters, FiltersForHistory)
        ids, unknown = listed("history", history), filters.get("unknown", "error")
        check_unknown(unknown)
        self._check_k(k)
        if unknown == "error":
            rows = self._item_rows("history", ids)
        else:
            rows = self.dataset.item_rows(ids)
            rows = rows[(rows >= 0) & self.trained_items[rows]]
        order = self.dataset.later(len(rows))
        known = Interactions.from_pairs(np.zeros(len(rows)), rows, 1, self.dataset.num_items, order)
        nothing = Interactions.none(1, self.dataset.num_items)
        hidden = known if filters.get("filter_seen", True) else nothing
        allowed = self._allowed(filters.get("items"), filters.get("exclude"))
        if unknown == "popular" and not len(rows):
            best, scores = self._popular(k, allowed)
            found = best[None], scores[None]
        else:
            found = self.best_for_somebody(k, Ranked(known, hidden, allowed))
        return self._lists("user", [0], found, self.dataset.item_names()).drop("user")

    def score(self, users: Ids, items: Ids) -> Float[np.ndarray, "n"]:
        """Score pairs of a user and an item; larger is better.

        Args:
          users, items: as many of both; or one of either, for all of the other.

        Raises:
          InputError: an unknown user or item, or lists of different lengths.
        """
        of_users = [users] if isinstance(users, int | str) else listed("users", users)
        of_items = [items] if isinstance(items, int | str) else listed("items", items)
        length = max(len(of_users), len(of_items))
        if {len(of_users), len(of_items)} - {1, length}:
            raise InputError(
                f"score: {len(of_users)} users and {len(of_items)} items; give as many of both, or "
                "one of either"
            )
        rows = np.resize(self._rows(of_users, self.everything, "error"), length)
        return self.pair_scores(rows, np.resize(self._item_rows("items", of_items), length))

    def similar_items(self, items: Ids, k: int = 10) -> pl.DataFrame:
        """List the k items most like each of these.

        Returns:
          Columns `item`, `rank`, `similar`, `title` (of the similar one) and `score` (of a model
          minus the squared distance between the two).

        Raises:
          InputError: an unknown item, or k below 1 or above the catalogue's size.
        """
        ids = listed("items", items)
        self._check_k(k)
        found = self.nearest_items(self._item_rows("items", ids), k)
        return self._lists("item", ids, found, self.dataset.item_names("similar"))

    def history(self, user: Id) -> pl.DataFrame:
        """List what a user is known to have: columns `item` and, if any, `title`.

        Raises:
          InputError: unknown user.
        """
        row = self.dataset.user_index(user)
        items = self.everything.of(row)
        return pl.DataFrame(
            {name: of_all[items] for name, of_all in self.dataset.item_names().items()}
        )

    # ---------------------------------------------------------------------------------------------
    # The first verb in two steps, for a service that answers many together.

    def rows_of_known(self, users: Ids) -> Int[np.ndarray, "u"]:
        """Find the rows of users; raises InputError where `recommend` would."""
        return self._rows(listed("users", users), self.everything, "error")

    def best_of_known(
        self, rows: Int[np.ndarray, "u"], k: int
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find rows and scores of what `recommend` lists, -1 and -inf where a list is shorter."""
        known = self.everything
        return self.best(rows, k, Ranked(known, known, self.trained_items))

    # ---------------------------------------------------------------------------------------------
    # From ids to rows, and back.

    def _check_k(self, k: int, most: int = 0, what: str = "the catalogue's size") -> None:
        most = most or self.dataset.num_items
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise InputError(f"k={k!r}: use a whole number")
        if not 1 <= k <= most:
            raise InputError(f"k={k}: use 1 to {most}, {what}")

    def _rows(self, ids: list[Id], known: Interactions, unknown: str) -> Int[np.ndarray, "u"]:
        """Find the rows of users; -1 for those to whom popular items are recommended."""
        check_unknown(unknown)
        dataset = self.dataset
        rows = dataset.user_rows(ids)
        # Of these users alone, as all are many for a single request.
        offsets = self._that_count(known).offsets
        has_any = offsets[rows + 1] > offsets[rows]
        rows = np.where((rows >= 0) & has_any, rows, -1)
        if unknown == "error" and (rows < 0).any():
            user = ids[int(np.argmin(rows))]
            dataset.user_index(user)  # Which says so if there is no such user.
            raise InputError(
                f"user {user!r} has no training interaction in data set {dataset.name!r}, so that "
                "nothing is known of it; fold its interactions in, or use unknown='popular'"
            )
        return rows

    def _item_rows(self, argument: str, ids: list[Id]) -> Int[np.ndarray, "n"]:
        """Find the rows of items that were trained on."""
        rows = self.dataset.item_rows(ids)
        for item, row in zip(ids, rows.tolist(), strict=True):
            if row < 0 or not self.trained_items[row]:
                fault = "is not in" if row < 0 else "has no training interaction in"
                like = ", ".join(map(str, self.dataset.item_ids[:3].tolist()))
                raise InputError(
                    f"{argument}: item {item!r} {fault} data set {self.dataset.name!r}; its "
                    f"{self.dataset.num_items} item ids look like {like}"
                )
        return rows

    def _allowed(self, items: Ids, exclude: Ids) -> Bool[np.ndarray, "i"]:
        if items is None and exclude is None:
            return self.trained_items
        allowed = self.trained_items.copy()
        if items is not None:
            allowed[:] = False
            allowed[self._item_rows("items", listed("items", items))] = True
        if exclude is not None:
            rows = self.dataset.item_rows(listed("exclude", exclude))
            allowed[rows[rows >= 0]] = False
        return allowed

    def _given(self, seen: Any) -> Interactions:
        """Read what users are known to have; users of whom nothing is asked may be among them."""
        if isinstance(seen, Mapping) and set(seen) != {"user", "item"}:
            pairs = [(user, item) for user, items in seen.items() for item in items]
            users, items = ([pair[i] for pair in pairs] for i in (0, 1))
        else:
            found = columns(seen, {"user": "user", "item": "item"})
            users, items = found["user"].to_list(), found["item"].to_list()
        rows, of_items = self.dataset.user_rows(users), self.dataset.item_rows(items)
        if (of_items < 0).any():
            self._item_rows("seen", [items[int(np.argmin(of_items))]])
        sizes = self.dataset.num_users, self.dataset.num_items
        order = self.dataset.later(int((rows >= 0).sum()))
        return Interactions.from_pairs(rows[rows >= 0], of_items[rows >= 0], *sizes, order)

    def _popular(
        self, k: int, allowed: Bool[np.ndarray, "i"]
    ) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        """List the most popular items, with the number of their training interactions."""
        counts = np.where(allowed, self.dataset.popularity, -1)
        ids = np.argsort(-counts, kind="stable")[:k]
        left = counts[ids] >= 0
        return np.where(left, ids, -1).astype(np.int32), np.where(left, counts[ids], -np.inf)

    def _lists(
        self,
        name: str,
        ids: list[Id],
        best: tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]],
        names: Mapping[str, np.ndarray],
    ) -> pl.DataFrame:
        """Make a frame of ranked lists.

        Args:
          name: of the column that says whose list a row is of.
          ids: whose lists these are, users or items.
          best: rows, -1 where a list is shorter, and scores.
          names: columns that say what is listed, by row.
        """
        rows, scores = best
        found = rows >= 0
        ranks = np.broadcast_to(np.arange(1, rows.shape[1] + 1), rows.shape)
        kind = (self.dataset.user_ids if name == "user" else self.dataset.item_ids).dtype
        own = np.repeat(_as(ids, kind), found.sum(axis=1))
        listed = {column: of_all[rows[found]] for column, of_all in names.items()}
        return pl.DataFrame({name: own, "rank": ranks[found], **listed, "score": scores[found]})


def _check_names(filters: Mapping[str, Any], known: type) -> None:
    if wrong := [name for name in filters if name not in known.__annotations__]:
        there_are = ", ".join(known.__annotations__)
        raise InputError(f"{wrong[0]}: there is no such argument; there are {there_are}")


def check_unknown(unknown: str) -> None:
    """Raise InputError for another answer to what is unknown than there are."""
    if unknown not in _UNKNOWN:
        raise InputError(f"unknown={unknown!r}: use one of {', '.join(_UNKNOWN)}")


def listed(argument: str, ids: Ids) -> list[Id]:
    """Return ids as a list of Python's own integers and texts."""
    if isinstance(ids, int | str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"{argument}={ids!r}: give a list of ids")
    plain = [x.item() if isinstance(x, np.generic) else x for x in ids]
    for x in plain:
        if isinstance(x, bool) or not isinstance(x, int | str):
            raise InputError(f"{argument}: {x!r} is no id; ids are integers or text")
    return plain


def _as(ids: list[Id], dtype: np.dtype) -> np.ndarray:
    """Convert ids to the type that the data set has them in; those it cannot have stay text."""
    try:
        return np.array(ids, np.int64 if dtype.kind in "iu" else np.str_)
    except (ValueError, OverflowError):
        return np.array([str(x) for x in ids])

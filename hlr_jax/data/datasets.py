"""Load data sets: find files, read, filter, number users and items, split, store the result."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hlr_jax.config import DataConfig
from hlr_jax.data import (
    features,
    labelling,
    prepared,
    preprocessing,
    raw,
    splits,
    synthetic,
    titles,
)
from hlr_jax.data.interactions import Interactions
from hlr_jax.data.resolve import ResolvedData, resolve
from hlr_jax.errors import InputError
from hlr_jax.files import cache_folder

_PARTS = ("train", "valid", "test", "given")
# Those that the digest depends on.
_DIGESTED = ("train", "valid", "given")
# What `Dataset.given` is by default; each data set puts its own size in its place.
_NOTHING = Interactions.none(0, 0)

# Part of every recipe: raise it when the same recipe would give another data set.
VERSION = 3


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Interactions split into train, validation and test, and what user and item ids stand for.

    There are `U` users and `I` items, numbered from 0. Users without a training interaction are
    kept: they are never trained on, and are ranked with their initial vector.

    Attributes:
      name: of the data set.
      train: what a model is trained on.
      valid: what models and epochs are selected by; may be empty.
      test: what a model is evaluated on.
      user_ids: `[U]` raw ids of the users, integers or strings, increasing.
      item_ids: `[I]` raw ids of the items, increasing.
      item_titles: `[I]` readable titles, "" if unknown; None if no item has one.
      given_negatives: `[U, n]` int32 items to rank a user's test item among, padded with -1; None
        if the data set comes without them.
      features: `[I, F]` float32 features of the items; None if the model needs none.
      given: interactions of held-out users that are known when these are ranked, and never trained
        on (`splits.held_out_users`); none where every user is trained on.
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
    # Popularity and digest as they were stored with prepared data, so that they are known without
    # reading all of it; before them, the ids, train, valid, given and features of which they are.
    _stored: tuple[tuple[Any, ...], np.ndarray, str] | None = dataclasses.field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        if self.given is _NOTHING:
            object.__setattr__(self, "given", Interactions.none(self.num_users, self.num_items))

    def _stored_values(self) -> tuple[np.ndarray, str] | None:
        """Return stored popularity and digest, unless what they belong to has been replaced."""
        if self._stored is None:
            return None
        belongs_to, popularity, digest = self._stored
        of_parts = (getattr(self, part) for part in _DIGESTED)
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

    @property
    def split_sizes(self) -> dict[str, int]:
        """The number of interactions in train, valid and test, and in given if there are any."""
        parts = ("train", "valid", "test", *(("given",) if len(self.given) else ()))
        return {part: len(getattr(self, part)) for part in parts}

    def user_index(self, raw_id: int | str) -> int:
        """Return the number of the user with this raw id.

        Raises:
          InputError: there is no such user.
        """
        # An id that cannot be converted to the type of the ids is not among them.
        with contextlib.suppress(ValueError, OverflowError):
            wanted = self.user_ids.dtype.type(raw_id)
            row = int(np.searchsorted(self.user_ids, wanted))
            if row < self.num_users and self.user_ids[row] == wanted:
                return row
        like = ", ".join(str(user) for user in self.user_ids[:3])
        raise InputError(
            f"user {raw_id!r} is not in data set {self.name!r}; "
            f"its {self.num_users} user ids look like {like}"
        )

    @property
    def popularity(self) -> np.ndarray:
        """`[I]` int64: the number of training interactions of each item."""
        stored = self._stored_values()
        return stored[0] if stored else self.train.popularity

    @property
    def digest(self) -> str:
        """A hash of all that trained parameters depend on: ids, train, valid, given, features."""
        if stored := self._stored_values():
            return stored[1]
        sha = hashlib.sha256()
        for array in (self.user_ids, self.item_ids):
            sha.update("\0".join(map(str, array.tolist())).encode())
        for part in (self.train, self.valid, *([self.given] if len(self.given) else [])):
            sha.update(part.offsets.tobytes() + part.items.tobytes())
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


def load(config: DataConfig, progress: bool = True) -> Dataset:
    """Load the data set that a configuration describes.

    Public data sets are downloaded if they are not on this machine (see `data.locate`). Prepared
    data is kept in the cache folder: the second load of the same data reads neither the files nor
    filters.

    Args:
      config: what to load, and how to filter and split it.
      progress: show progress bars on standard error.

    Raises:
      InputError: a field of the configuration or a file cannot be used, or nothing to train or
        test on is left.
    """
    if config.join_valid:
        return load(dataclasses.replace(config, join_valid=False), progress).joined()
    resolved = resolve(config, progress)
    if not resolved.files:
        return _prepare(config, resolved)
    recipe = _recipe(config, resolved)
    folder = cache_folder() / "prepared" / prepared.folder_name(resolved.name, recipe)
    dataset = _from_arrays(resolved.name, prepared.restore(folder))
    if dataset is None or (dataset.features is None) != (resolved.features is None):
        dataset = _prepare(config, resolved)
        prepared.save(folder, _to_arrays(dataset), recipe)
    return dataset


def _recipe(config: DataConfig, resolved: ResolvedData) -> dict[str, Any]:
    """Collect everything that the prepared data depends on, as plain JSON."""
    files = list(resolved.files)
    files += [found[0] for found in (resolved.titles, resolved.features) if found]
    described = []
    for path in files:
        status = path.stat()
        described.append([os.fspath(path.resolve()), status.st_size, status.st_mtime_ns])
    # A rule may be given in the configuration or be the data set's own: the recipe is the same.
    names = ("kind", "min_rating", "core", "item_core", "split")
    rules = {name: getattr(resolved, name) for name in names}
    return {
        "version": VERSION,
        "config": dataclasses.asdict(config) | rules,
        "spec": dataclasses.asdict(resolved.spec) if resolved.spec else None,
        "files": described,
    }


# ---------------------------------------------------------------------------------------------
# From raw interactions to a data set.


def _prepare(config: DataConfig, resolved: ResolvedData) -> Dataset:
    interactions = raw.read(config, resolved)
    if resolved.split == "fixed":
        assert interactions.labels is not None
        frame, labels = interactions.frame, interactions.labels
    else:
        frame, labels = _filtered(interactions.frame, resolved), None
    encoded = preprocessing.encode(frame)
    if labels is None:
        labels = labelling.split(config, resolved.split, frame, encoded)
        if (labels == splits.UNKNOWN).any():
            encoded = preprocessing.encode(frame.filter(pl.Series(labels != splits.UNKNOWN)))
            labels = labels[labels != splits.UNKNOWN]
    else:
        labels = labelling.with_validation(labels, encoded.users, config)
    users, items, user_ids, item_ids = encoded
    train, valid, test, known = (
        Interactions.from_pairs(
            users[labels == label], items[labels == label], user_ids.size, item_ids.size
        )
        for label in (splits.TRAIN, splits.VALID, splits.TEST, splits.GIVEN)
    )
    given = interactions.given_negatives if resolved.split == "fixed" else None
    dataset = Dataset(
        name=resolved.name,
        train=train,
        valid=valid,
        test=test,
        given=known,
        user_ids=user_ids,
        item_ids=item_ids,
        item_titles=_titles(resolved, item_ids),
        given_negatives=_given_negatives(given, user_ids, item_ids),
        features=features.read(*resolved.features, item_ids) if resolved.features else None,
    )
    check(dataset)
    return dataset


def _filtered(frame: pl.DataFrame, resolved: ResolvedData) -> pl.DataFrame:
    if resolved.min_rating > 0:
        frame = preprocessing.keep_rated(frame, resolved.min_rating)
    frame = preprocessing.merge_duplicates(frame)
    return preprocessing.k_core(frame, resolved.core, resolved.item_core)


def _titles(resolved: ResolvedData, item_ids: np.ndarray) -> np.ndarray | None:
    """Return `[I]` titles of the items, "" if unknown; None if no title is known."""
    if resolved.kind == "embedded":
        return synthetic.titles()[item_ids.astype(np.int64)]
    if resolved.titles is None:
        return None
    known = titles.read(*resolved.titles)
    of_items = [known.get(str(item), "") for item in item_ids.tolist()]
    return np.array(of_items, np.str_) if any(of_items) else None


def _given_negatives(
    given: tuple[np.ndarray, np.ndarray] | None, user_ids: np.ndarray, item_ids: np.ndarray
) -> np.ndarray | None:
    """Convert negatives from raw ids to `[U, n]` item numbers.

    Items that the data set does not have become -1, and so do all negatives of users without any.
    """
    if given is None:
        return None
    users, negatives = given
    table = np.full((user_ids.size, negatives.shape[1]), -1, np.int32)
    rows = _positions(users, user_ids)
    table[rows[rows >= 0]] = _positions(negatives, item_ids)[rows >= 0]
    return table


def _positions(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the position of each value in `ids [n]`, or -1 for values that are not there."""
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids, values, sorter=order), ids.size - 1)]
    return np.where(ids[at] == values, at, -1)


def check(dataset: Dataset) -> None:
    """Check that a model can be trained and evaluated on a data set.

    Raises:
      InputError: train or test is empty, features do not fit the items, or a user has interacted
        with every item, so that there is no negative to draw.
    """
    for part, remedy in (
        ("train", "leave more to train on"),
        ("test", "raise config.data.test_fraction, or choose another config.data.split"),
    ):
        if len(getattr(dataset, part)) == 0:
            raise InputError(
                f"data set {dataset.name!r}: no user has a {part} interaction; {remedy}"
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


# ---------------------------------------------------------------------------------------------
# To and from the arrays that `prepared` stores.


def _to_arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    arrays = {"user_ids": dataset.user_ids, "item_ids": dataset.item_ids}
    for part in _PARTS:
        interactions = getattr(dataset, part)
        arrays[f"{part}_offsets"] = interactions.offsets
        arrays[f"{part}_items"] = interactions.items
    for field in ("item_titles", "given_negatives", "features"):
        if getattr(dataset, field) is not None:
            arrays[field] = getattr(dataset, field)
    return arrays | {"popularity": dataset.popularity, "digest": np.array(dataset.digest)}


def _from_arrays(name: str, arrays: Mapping[str, np.ndarray] | None) -> Dataset | None:
    """Rebuild a data set; None if an array is missing or does not fit the others."""
    parts = {}
    try:
        if arrays is None:
            return None
        user_ids, item_ids = arrays["user_ids"], arrays["item_ids"]
        num_users, num_items = user_ids.size, item_ids.size
        for part in _PARTS:
            offsets, items = arrays[f"{part}_offsets"], arrays[f"{part}_items"]
            if offsets.shape != (num_users + 1,) or offsets[-1] != items.size:
                return None
            parts[part] = Interactions(offsets, items, num_items)
        item_features = arrays.get("features")
        if item_features is not None and len(item_features) != num_items:
            return None
        return Dataset(
            name=name,
            user_ids=user_ids,
            item_ids=item_ids,
            item_titles=arrays.get("item_titles"),
            given_negatives=arrays.get("given_negatives"),
            features=item_features,
            **parts,
            _stored=(
                (user_ids, item_ids, *(parts[part] for part in _DIGESTED), item_features),
                arrays["popularity"],
                str(arrays["digest"]),
            ),
        )
    except KeyError:
        return None

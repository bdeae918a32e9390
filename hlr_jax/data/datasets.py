"""From a configuration to a data set: find, read, filter, encode, split, and keep the result."""

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
    locate,
    origins,
    prepared,
    preprocessing,
    registry,
    splits,
    synthetic,
)
from hlr_jax.data.interactions import Interactions
from hlr_jax.data.origins import Origin
from hlr_jax.errors import InputError

# Part of every recipe: raise it when the same recipe would give another data set.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Interactions divided into train, validation and test, and what their ids stand for.

    Users without a training interaction are kept: they are never trained on and are ranked with
    the vector they start from.

    Attributes:
      name: of the data set.
      train: what a model learns from.
      valid: what a model is selected on; may be empty.
      test: what a model is measured on.
      user_ids: `[U]` raw ids of the users, integers or strings, increasing.
      item_ids: `[I]` raw ids of the items, increasing.
      item_titles: `[I]` readable names, "" where unknown; None where no item has one.
      given_negatives: `[U, n]` int32 items to rank a user's test item among, -1 where there is
        none; None where the data set gives none.
      features: `[I, F]` float32 features of the items, as a model reads them; or None.
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
    # Of the data as they were prepared, so that not everybody who asks has to read all of them:
    # training, validation and features, then popularity and digest.
    _prepared: tuple[tuple[Any, ...], np.ndarray, str] | None = dataclasses.field(
        default=None, repr=False
    )

    def _known(self) -> tuple[np.ndarray, str] | None:
        """Popularity and digest, unless what they are of has been replaced since."""
        if self._prepared is None:
            return None
        of, popularity, digest = self._prepared
        now = (self.train, self.valid, self.features)
        return (popularity, digest) if all(a is b for a, b in zip(of, now, strict=True)) else None

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def num_features(self) -> int:
        """`F`; 0 without features."""
        return 0 if self.features is None else int(self.features.shape[1])

    def joined(self) -> "Dataset":
        """The same with validation interactions in training."""
        nothing = Interactions.from_pairs(
            np.zeros(0, int), np.zeros(0, int), self.num_users, self.num_items
        )
        train = self.train.union(self.valid)
        return dataclasses.replace(self, train=train, valid=nothing, _prepared=None)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Interactions by split."""
        return {part: len(getattr(self, part)) for part in ("train", "valid", "test")}

    def user_index(self, raw_id: int | str) -> int:
        """The row of the user whose raw id this is.

        Raises:
          InputError: there is no such user.
        """
        # An id that cannot be turned into the type of the others is not among them.
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
        """`[I]` int64: training interactions of each item."""
        known = self._known()
        return known[0] if known else self.train.popularity

    @property
    def digest(self) -> str:
        """A hash of what parameters depend on: who is who, and what they are trained on."""
        if known := self._known():
            return known[1]
        sha = hashlib.sha256()
        for array in (self.user_ids, self.item_ids):
            sha.update("\0".join(map(str, array.tolist())).encode())
        for part in (self.train, self.valid):
            sha.update(part.offsets.tobytes() + part.items.tobytes())
        if self.features is not None:
            sha.update(self.features.tobytes())
        return sha.hexdigest()


def load(config: DataConfig, progress: bool = True) -> Dataset:
    """The data set that a configuration describes.

    Public data sets are looked for in the data folder and the cache (see `locate`) and otherwise
    downloaded. What was prepared once is read from the cache.

    Args:
      config: what to load and how to filter and split it.
      progress: show progress bars on standard error.

    Raises:
      InputError: a field, a file or what comes of them cannot be used.
    """
    if config.join_valid:
        return load(dataclasses.replace(config, join_valid=False), progress).joined()
    origin = origins.find(config, progress)
    if not origin.files:
        return _prepare(config, origin)
    recipe = _recipe(config, origin)
    folder = locate.cache_folder() / "prepared" / prepared.folder_name(origin.name, recipe)
    dataset = _from_arrays(origin.name, prepared.restore(folder))
    if dataset is None or (dataset.features is None) != (origin.features is None):
        dataset = _prepare(config, origin)
        prepared.save(folder, _to_arrays(dataset), recipe)
    return dataset


def _recipe(config: DataConfig, origin: Origin) -> dict[str, Any]:
    """Everything that decides the data set, as plain JSON."""
    files = list(origin.files)
    files += [found[0] for found in (origin.titles, origin.features) if found]
    described = []
    for path in files:
        status = path.stat()
        described.append([os.fspath(path.resolve()), status.st_size, status.st_mtime_ns])
    # A rule is the same whether the configuration gives it or leaves it to the data set.
    names = ("kind", "min_rating", "core", "item_core", "split")
    rules = {name: getattr(origin, name) for name in names}
    return {
        "version": VERSION,
        "config": dataclasses.asdict(config) | rules,
        "source": dataclasses.asdict(origin.source) if origin.source else None,
        "files": described,
    }


# ---------------------------------------------------------------------------------------------
# Preparing.


def _prepare(config: DataConfig, origin: Origin) -> Dataset:
    rows = origins.read(config, origin)
    if origin.split == "fixed":
        assert rows.labels is not None
        frame, labels = rows.frame, rows.labels
    else:
        frame, labels = _filtered(rows.frame, origin), None
    users, items, user_ids, item_ids = preprocessing.encode(frame)
    if labels is None:
        labels = _split(config, origin.split, users, frame)
    elif not (labels == splits.VALID).any():
        labels = _with_validation(labels, config)
    train, valid, test = (
        Interactions.from_pairs(
            users[labels == label], items[labels == label], user_ids.size, item_ids.size
        )
        for label in (splits.TRAIN, splits.VALID, splits.TEST)
    )
    given = rows.given if origin.split == "fixed" else None
    dataset = Dataset(
        name=origin.name,
        train=train,
        valid=valid,
        test=test,
        user_ids=user_ids,
        item_ids=item_ids,
        item_titles=_titles(origin, item_ids),
        given_negatives=_given_negatives(given, user_ids, item_ids),
        features=features.read(*origin.features, item_ids) if origin.features else None,
    )
    check(dataset)
    return dataset


def _filtered(frame: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    if origin.min_rating > 0:
        frame = preprocessing.keep_rated(frame, origin.min_rating)
    frame = preprocessing.merge_duplicates(frame)
    return preprocessing.k_core(frame, origin.core, origin.item_core)


def _split(config: DataConfig, split: str, users: np.ndarray, frame: pl.DataFrame) -> np.ndarray:
    """`[N]` the split of each row, by the rule named."""
    fractions = (config.valid_fraction, config.test_fraction)
    if split == "random":
        return splits.random_split(users.size, *fractions, config.split_seed)
    if split == "per_user":
        return splits.per_user_ratio(users, *fractions, config.split_seed)
    if "timestamp" not in frame.columns:
        raise InputError(
            f"config.data.split={split!r}: data set {config.name!r} has no timestamps; use random "
            "or per_user"
            + (", or name config.data.timestamp_column" if config.name == registry.OWN_FILE else "")
        )
    timestamps = frame["timestamp"].to_numpy()
    if split == "leave_one_out":
        return splits.leave_one_out(users, timestamps)
    if split == "global_time":
        return splits.global_time(timestamps, *fractions)
    return splits.per_user_time(users, timestamps, *fractions)


def _with_validation(labels: np.ndarray, config: DataConfig) -> np.ndarray:
    """Labels with a random `valid_fraction` of the training rows moved to validation."""
    train = np.flatnonzero(labels == splits.TRAIN)
    moved = np.random.default_rng(config.split_seed).permutation(train)
    labels = labels.copy()
    labels[moved[: round(config.valid_fraction * train.size)]] = splits.VALID
    return labels


def _titles(origin: Origin, item_ids: np.ndarray) -> np.ndarray | None:
    """`[I]` names of the items, or None where none is known."""
    if origin.kind == "embedded":
        return synthetic.titles()[item_ids.astype(np.int64)]
    if origin.titles is None:
        return None
    known = locate.read_titles(*origin.titles)
    names = [known.get(str(item), "") for item in item_ids.tolist()]
    return np.array(names, np.str_) if any(names) else None


def _given_negatives(
    given: tuple[np.ndarray, np.ndarray] | None, user_ids: np.ndarray, item_ids: np.ndarray
) -> np.ndarray | None:
    """`[U, n]` the negatives in encoded ids; -1 for unknown items and users without any."""
    if given is None:
        return None
    users, negatives = given
    table = np.full((user_ids.size, negatives.shape[1]), -1, np.int32)
    rows = _positions(users, user_ids)
    table[rows[rows >= 0]] = _positions(negatives, item_ids)[rows >= 0]
    return table


def _positions(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of `values` is in `ids [n]`, -1 where it is not."""
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids, values, sorter=order), ids.size - 1)]
    return np.where(ids[at] == values, at, -1)


def check(dataset: Dataset) -> None:
    """Raises InputError where nothing can be trained or measured on a data set."""
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
    # Counting pairs that are in both splits twice is cheap and never too low.
    suspects = np.flatnonzero(dataset.train.counts + dataset.valid.counts >= dataset.num_items)
    for user in suspects.tolist():
        seen = np.union1d(dataset.train.of(user), dataset.valid.of(user)).size
        if seen >= dataset.num_items:
            raise InputError(
                f"data set {dataset.name!r}: user {dataset.user_ids[user]} has touched all "
                f"{dataset.num_items} items, so no negative can be drawn; remove the user"
            )


# ---------------------------------------------------------------------------------------------
# Keeping.


def _to_arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    arrays = {"user_ids": dataset.user_ids, "item_ids": dataset.item_ids}
    for part in ("train", "valid", "test"):
        interactions = getattr(dataset, part)
        arrays[f"{part}_offsets"] = interactions.offsets
        arrays[f"{part}_items"] = interactions.items
    for field in ("item_titles", "given_negatives", "features"):
        if getattr(dataset, field) is not None:
            arrays[field] = getattr(dataset, field)
    return arrays | {"popularity": dataset.popularity, "digest": np.array(dataset.digest)}


def _from_arrays(name: str, arrays: Mapping[str, np.ndarray] | None) -> Dataset | None:
    """The data set again, or nothing where an array is missing or does not fit the others."""
    parts = {}
    try:
        if arrays is None:
            return None
        num_users, num_items = arrays["user_ids"].size, arrays["item_ids"].size
        for part in ("train", "valid", "test"):
            offsets, items = arrays[f"{part}_offsets"], arrays[f"{part}_items"]
            if offsets.shape != (num_users + 1,) or offsets[-1] != items.size:
                return None
            parts[part] = Interactions(offsets, items, num_items)
        of_items = arrays.get("features")
        if of_items is not None and len(of_items) != num_items:
            return None
        return Dataset(
            name=name,
            user_ids=arrays["user_ids"],
            item_ids=arrays["item_ids"],
            item_titles=arrays.get("item_titles"),
            given_negatives=arrays.get("given_negatives"),
            features=of_items,
            **parts,
            _prepared=(
                (parts["train"], parts["valid"], of_items),
                arrays["popularity"],
                str(arrays["digest"]),
            ),
        )
    except KeyError:
        return None

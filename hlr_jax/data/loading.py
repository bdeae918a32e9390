"""Load data sets: find files, read, filter, number users and items, split, store the result."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hlr_jax.cache import PREPARED, cache_folder, cache_limit, keep_within, mark_used
from hlr_jax.config import DataConfig
from hlr_jax.data import (
    arrays,
    features,
    labelling,
    prepared,
    preprocessing,
    raw,
    splits,
    synthetic,
    titles,
)
from hlr_jax.data.dataset import Dataset, check_trainable
from hlr_jax.data.filtered import Filtered
from hlr_jax.data.fingerprints import Fingerprint, check_unchanged, fingerprints
from hlr_jax.data.interactions import Interactions, some
from hlr_jax.data.resolve import ResolvedData, resolve
from hlr_jax.errors import InputError
from hlr_jax.files import remove_unfinished

_log = logging.getLogger(__name__)

# Part of every recipe: raise it when the same recipe would give another data set.
VERSION = 6
# What was used within a week stays even where the cache is full: another machine that shares the
# folder may train on it, and on a network file system it would lose what it has mapped.
_SPARED_SECONDS = 7 * 24 * 60 * 60


def load(config: DataConfig, progress: bool = True) -> Dataset:
    """Load the data set that a configuration describes.

    Public data sets are downloaded if they are not on this machine (see `data.locate`). Prepared
    data is kept in the cache folder: the second load of the same data reads neither the files nor
    filters.

    Args:
      config: what to load, and how to filter and split it.
      progress: show progress bars on standard error.

    Raises:
      InputError: a field of the configuration or a file cannot be used or changes while it is read,
        or nothing to train or test on is left.
    """
    if config.join_valid:
        return load(dataclasses.replace(config, join_valid=False), progress).joined()
    resolved = resolve(config, progress)
    if not resolved.files:
        return prepare(config, resolved, raw.read(config, resolved))
    cache = cache_folder() / PREPARED
    remove_unfinished(cache)
    files = fingerprints(_files(resolved))
    recipe = _recipe(config, resolved, files)
    folder = cache / prepared.folder_name(resolved.name, recipe)
    dataset = arrays.from_arrays(resolved.name, prepared.restore(folder))
    if dataset is None or not _is_complete(dataset, config, resolved):
        dataset = prepare(config, resolved, raw.read(config, resolved))
        check_unchanged(files)
        prepared.save(folder, arrays.to_arrays(dataset), recipe)
        if cache.is_dir():
            keep_within(cache_limit(), cache.iterdir(), _SPARED_SECONDS)
    else:
        _warn_of_full_users(dataset)
    mark_used(folder)
    return dataset


def _is_complete(dataset: Dataset, config: DataConfig, resolved: ResolvedData) -> bool:
    """Whether stored data have what only some data have."""
    has_features = dataset.features is not None
    return has_features == (resolved.features is not None) and (
        dataset.train.has_times or not config.keep_times
    )


def _files(resolved: ResolvedData) -> list[pathlib.Path]:
    """List all files that a data set is read from."""
    others = [found[0] for found in (resolved.titles, resolved.features) if found]
    return [*resolved.files, *others]


def _recipe(
    config: DataConfig, resolved: ResolvedData, files: Mapping[pathlib.Path, Fingerprint]
) -> dict[str, Any]:
    """Collect everything that the prepared data depends on, as plain JSON.

    Where a file is does not count, so that one that was moved or touched finds its data again.
    """

    def described(path: pathlib.Path, form: Any = None) -> list[Any]:
        fields = None if form is None else dataclasses.asdict(form)
        return [path.name, files[path].digest, fields]

    # A rule may be given in the configuration or be the data set's own: the recipe is the same.
    names = ("kind", "min_rating", "core", "item_core", "split")
    rules = {name: getattr(resolved, name) for name in names}
    fields = dataclasses.asdict(config) | rules
    for place in ("path", "predefined", "features"):
        del fields[place]
    return {
        "version": VERSION,
        "config": fields,
        "spec": dataclasses.asdict(resolved.spec) if resolved.spec else None,
        "files": [described(path) for path in resolved.files],
        "titles": resolved.titles and described(*resolved.titles),
        "features": resolved.features and described(*resolved.features),
    }


# ---------------------------------------------------------------------------------------------
# From raw interactions to a data set.


def prepare(
    config: DataConfig, resolved: ResolvedData, interactions: raw.RawInteractions
) -> Dataset:
    """Filter, number and split interactions as configured.

    Raises:
      InputError: a filter or the split cannot be used, or leaves nothing.
    """
    if resolved.split == "fixed":
        assert interactions.labels is not None
        frame, labels = interactions.frame, interactions.labels
        filtered = Filtered(frame.height)
    else:
        (frame, filtered), labels = _filtered(interactions.frame, resolved), None
    if config.keep_times and "timestamp" not in frame.columns:
        remedy = "name their column in config.data.timestamp_column, or take data that have them"
        if resolved.kind in ("predefined", "fixed"):
            remedy = (
                "of a split that comes as files none are read; choose a config.data.split by time"
            )
        raise InputError(
            f"config.data.keep_times=True: data set {resolved.name!r} has no times of "
            f"interactions; {remedy}"
        )
    encoded = preprocessing.encode(frame, config.keep_times)
    if labels is None:
        labels = labelling.split(config, resolved.split, frame, encoded)
        if (labels == splits.UNKNOWN).any():
            filtered = filtered._replace(unknown=int((labels == splits.UNKNOWN).sum()))
            is_known = labels != splits.UNKNOWN
            encoded, labels = preprocessing.chosen(encoded, is_known), labels[is_known]
    else:
        labels = labelling.with_validation(labels, encoded.users, config)
    encoded, labels, filtered = _without_full_users(encoded, labels, filtered)
    user_ids, item_ids = encoded.user_ids, encoded.item_ids
    train, valid, test, known = (
        _part(encoded, labels == label)
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
        filtered=filtered,
    )
    check_trainable(dataset)
    _warn_of_full_users(dataset)
    if resolved.split != "none" and not len(test):
        raise InputError(
            f"data set {dataset.name!r}: no user has a test interaction; raise "
            "config.data.test_fraction, or choose another config.data.split"
        )
    return dataset


def _part(encoded: preprocessing.Encoded, rows: np.ndarray) -> Interactions:
    """Take some interactions, of all users and items."""
    return Interactions.from_pairs(
        encoded.users[rows],
        encoded.items[rows],
        encoded.user_ids.size,
        encoded.item_ids.size,
        some(encoded.times, rows),
    )


def _without_full_users(
    encoded: preprocessing.Encoded, labels: np.ndarray, filtered: Filtered
) -> tuple[preprocessing.Encoded, np.ndarray, Filtered]:
    """Leave out users who are known to have every item: there is no negative to draw for them.

    Items that nobody else has go with them, until nobody has every item; if nobody would be left,
    all stay, for `check_trainable` to refuse.
    """
    before = (encoded, labels, filtered)
    while True:
        full = labelling.full_users(encoded, labels)
        if not full.any():
            return encoded, labels, filtered
        kept = ~full[encoded.users]
        if not (labels[kept] == splits.TRAIN).any():
            return before
        filtered = filtered._replace(
            full=filtered.full + int((~kept).sum()),
            full_users=filtered.full_users + int(full.sum()),
        )
        encoded, labels = preprocessing.chosen(encoded, kept), labels[kept]


def _warn_of_full_users(dataset: Dataset) -> None:
    if number := dataset.filtered.full_users:
        _log.warning(
            "%s: %s users have every item and are left out: no item is unlike theirs",
            dataset.name,
            f"{number:,}",
        )


def _filtered(frame: pl.DataFrame, resolved: ResolvedData) -> tuple[pl.DataFrame, Filtered]:
    rated = frame
    if resolved.min_rating > 0:
        rated = preprocessing.keep_rated(frame, resolved.min_rating)
    merged = preprocessing.merge_duplicates(rated)
    kept = preprocessing.k_core(merged, resolved.core, resolved.item_core)
    rare_users, rare_items = (
        0 if kept is merged else merged[name].n_unique() - kept[name].n_unique()
        for name in ("user", "item")
    )
    return kept, Filtered(
        read=frame.height,
        low=frame.height - rated.height,
        repeated=rated.height - merged.height,
        rare=merged.height - kept.height,
        rare_users=rare_users,
        rare_items=rare_items,
        min_rating=resolved.min_rating,
        core=resolved.core,
        item_core=resolved.item_core,
    )


def _titles(resolved: ResolvedData, item_ids: np.ndarray) -> np.ndarray | None:
    """Return `[I]` titles of the items, "" if unknown; None if no title is known."""
    if resolved.kind == "embedded":
        return synthetic.titles()[item_ids.astype(np.int64)]
    if resolved.titles is None:
        return None
    return titles.of_items(titles.read(*resolved.titles), item_ids)


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

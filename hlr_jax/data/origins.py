"""Which files a configuration stands for, and the interactions read from them."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
import polars as pl

from hlr_jax.config import DataConfig
from hlr_jax.data import locate, readers, registry, splits, synthetic
from hlr_jax.data.registry import Features, Source, Titles
from hlr_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a data set comes from and the rules it is made by.

    Attributes:
      name: of the data set.
      kind: `embedded`, `own`, `predefined`, or the `kind` of a `Source`.
      files: what is read; for `predefined` all the files of the split.
      min_rating, core, item_core, split: the configuration's rules, or the data set's own.
      source: of a public data set.
      unrated: the first file is an adjacency list instead of the source's rated table.
      titles: a table of item names.
      features: the file with features of items, and its form; None for a table of the user's.
    """

    name: str
    kind: str
    files: tuple[pathlib.Path, ...] = ()
    min_rating: float = 0.0
    core: int = 0
    item_core: int = 0
    split: str = "random"
    source: Source | None = None
    unrated: bool = False
    titles: tuple[pathlib.Path, Titles] | None = None
    features: tuple[pathlib.Path, Features | None] | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Interactions as read, before ids are encoded.

    Attributes:
      frame: columns `user`, `item` and maybe `rating` and `timestamp`.
      labels: `[N]` split of each row as the files give it; None where they give none.
      given: `users [n]` and `negatives [n, m]`, raw ids, of a sampled protocol.
    """

    frame: pl.DataFrame
    labels: np.ndarray | None = None
    given: tuple[np.ndarray, np.ndarray] | None = None


def find(config: DataConfig, progress: bool) -> Origin:
    """Where the data set of a configuration is, downloaded if need be, and its rules.

    Raises:
      InputError: there is no such data set, file or folder, or the rules do not suit it.
    """
    return dataclasses.replace(_find(config, progress), features=_find_features(config, progress))


def _find(config: DataConfig, progress: bool) -> Origin:
    own = config.name in (registry.EMBEDDED, registry.OWN_FILE)
    source = None if own else registry.find_source(config.name)
    titles = None if source is None else locate.find_titles(source)
    if config.predefined:
        folder = locate.find_predefined(config.predefined)
        files = _all_split_files(folder)
        return Origin(folder.resolve().name, "predefined", files, split="fixed", titles=titles)
    if source is not None:
        return _find_source_files(config, source, progress)
    if config.split == "fixed":
        raise InputError(
            f"config.data.split='fixed': data set {config.name!r} ships no split; use another "
            "config.data.split, or name a folder with train and test in config.data.predefined"
        )
    origin = Origin(
        name=config.name,
        kind="embedded",
        min_rating=float(config.min_rating or 0),
        core=config.core or 0,
        item_core=_item_core(config, config.core or 0),
        split=config.split or "random",
    )
    if config.name == registry.EMBEDDED:
        return origin
    path = pathlib.Path(config.path).expanduser()
    if not path.is_file():
        raise InputError(f"config.data.path={config.path!r}: there is no such file")
    return dataclasses.replace(origin, name=path.name, kind="own", files=(path,))


def _find_features(
    config: DataConfig, progress: bool
) -> tuple[pathlib.Path, Features | None] | None:
    if not config.features:
        return None
    field = f"config.data.features={config.features!r}"
    if config.has_features_file:
        path = pathlib.Path(config.features).expanduser()
        if not path.is_file():
            raise InputError(
                f"{field}: there is no such file; give a path, or {config.OWN_FEATURES}"
            )
        return path, None
    source = registry.SOURCES.get(config.name)
    if source is None or source.features is None:
        known = ", ".join(name for name, source in registry.SOURCES.items() if source.features)
        raise InputError(
            f"{field}: data set {config.name!r} has no features of its own ({known} have); give "
            "the path of a table"
        )
    return locate.find_features(source, source.features, progress), source.features


def _find_source_files(config: DataConfig, source: Source, progress: bool) -> Origin:
    split = config.split or ("fixed" if source.ships_split else "random")
    min_rating = source.min_rating if config.min_rating is None else config.min_rating
    core = source.core if config.core is None else config.core
    item_core = _item_core(config, core)
    if split == "fixed":
        if not source.ships_split:
            raise InputError(
                f"config.data.split='fixed': data set {source.name!r} ships no split; use "
                f"{', '.join(name for name in config.SPLITS if name not in ('', 'fixed'))}"
            )
        for field, value in (
            ("min_rating", min_rating),
            ("core", core),
            ("item_core", item_core),
        ):
            if value:
                raise InputError(
                    f"config.data.{field}={value}: the split that {source.name!r} ships cannot be "
                    "filtered; leave it out, or choose another config.data.split"
                )
    found = locate.find(source, needs_ratings=min_rating > 0, progress=progress)
    files = found.files
    if source.kind == "fixed":
        files = _all_split_files(files[0].parent)
    return Origin(
        name=source.name,
        kind=source.kind,
        files=files,
        min_rating=float(min_rating),
        core=core,
        item_core=item_core,
        split=split,
        source=source,
        unrated=found.unrated,
        titles=locate.find_titles(source),
    )


def _item_core(config: DataConfig, core: int) -> int:
    return core if config.item_core is None else config.item_core


def _all_split_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The files of a split; validation is used where it is there but need not be."""
    parts = ("train", "valid", "test")
    return tuple(path for part in parts for path in locate.split_files(folder, part))


def read(config: DataConfig, origin: Origin) -> Rows:
    """The interactions of a data set, unfiltered.

    Raises:
      InputError: a file cannot be used.
    """
    if origin.kind == "embedded":
        return Rows(synthetic.generate())
    path = origin.files[0]
    if origin.kind == "own":
        return Rows(_read_own(config, path))
    if origin.kind in ("predefined", "fixed"):
        return _read_parts(splits.read_predefined(path.parent))
    assert origin.source is not None
    if origin.kind == "ncf":
        return _read_ncf(origin)
    if origin.kind == "lists":
        return Rows(readers.read_user_lists(path))
    if origin.unrated:
        return Rows(_read_oldest_first(path))
    assert origin.source.columns is not None
    return Rows(readers.read_table(path, origin.source.columns, origin.source.format))


def _read_own(config: DataConfig, path: pathlib.Path) -> pl.DataFrame:
    if config.format == "adjacency":
        return readers.read_adjacency(path)
    if config.format == "lists":
        return readers.read_user_lists(path)
    columns = readers.Columns(
        config.user_column,
        config.item_column,
        config.rating_column or None,
        config.timestamp_column or None,
    )
    return readers.read_table(path, columns, config.format)


def _read_oldest_first(path: pathlib.Path) -> pl.DataFrame:
    """Adjacency lists whose order is the order in time, which the rows' numbers then tell."""
    frame = readers.read_adjacency(path)
    return frame.with_columns(timestamp=pl.int_range(pl.len(), dtype=pl.Int64))


def _read_parts(parts: Mapping[str, pl.DataFrame | None]) -> Rows:
    frames, labels = [], []
    for label, part in enumerate(("train", "valid", "test")):
        frame = parts[part]
        if frame is not None:
            frames.append(frame.select("user", "item"))
            labels.append(np.full(frame.height, label, np.int8))
    return Rows(pl.concat(frames), np.concatenate(labels))


def _read_ncf(origin: Origin) -> Rows:
    """Train and test of a leave-one-out; the last training item of each user validates."""
    ratings, test_ratings, test_negatives = origin.files
    given = readers.read_ncf(test_ratings, test_negatives)
    test = given.frame
    if origin.unrated:
        train = _read_oldest_first(ratings)
        test = test.with_columns(timestamp=train.height + pl.int_range(pl.len(), dtype=pl.Int64))
        columns = ["user", "item", "timestamp"]
    else:
        train = readers.read_table(ratings, readers.Columns(0, 1, 2, 3), "tsv")
        columns = ["user", "item", "rating", "timestamp"]
    labels = np.full(train.height + test.height, splits.TRAIN, np.int8)
    labels[train.height :] = splits.TEST
    labels[_last_of_each(train["user"].to_numpy(), train["timestamp"].to_numpy())] = splits.VALID
    frame = pl.concat([train.select(columns), test.select(columns)])
    return Rows(frame, labels, (given.users, given.negatives))


def _last_of_each(users: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """The last row in time of each user with two or more rows; of equal times the later row."""
    order = np.lexsort((timestamps, users))
    ordered = users[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return order[ends[np.diff(ends, prepend=-1) > 1]]

"""Read the interactions of a data set as its files have them, before any filter."""

import dataclasses
import pathlib

import numpy as np
import polars as pl

from hlr_jax.config import DataConfig
from hlr_jax.data import readers, splits, synthetic
from hlr_jax.data.resolve import ResolvedData

# What is hard to type in a shell.
_NAMED_SEPARATORS = {"\\t": "\t", "tab": "\t"}


@dataclasses.dataclass(frozen=True)
class RawInteractions:
    """Interactions with raw ids.

    Attributes:
      frame: `N` rows with columns `user`, `item` and maybe `rating` and `timestamp`.
      labels: `[N]` int8 the part of the split (`splits.TRAIN`, ...) that each row is in; None if
        the files give no split.
      given_negatives: users `[n]` and the negatives `[n, m]` to rank their test items among, as
        raw ids; None if the files give no negatives.
    """

    frame: pl.DataFrame
    labels: np.ndarray | None = None
    given_negatives: tuple[np.ndarray, np.ndarray] | None = None


def read(config: DataConfig, resolved: ResolvedData) -> RawInteractions:
    """Read the interactions of a data set.

    Args:
      config: names the columns of a file of the user's.
      resolved: what `resolve` makes of the configuration.

    Raises:
      InputError: a file cannot be used.
    """
    if resolved.kind == "embedded":
        return RawInteractions(synthetic.generate())
    path = resolved.files[0]
    if resolved.kind == "own":
        return RawInteractions(_read_own(config, path))
    if resolved.kind in ("predefined", "fixed"):
        return _read_split(path.parent, dialect_of(config))
    if resolved.kind == "ncf":
        return _read_ncf(resolved)
    if resolved.kind == "lists":
        return RawInteractions(readers.read_user_lists(path))
    if resolved.unrated:
        return RawInteractions(_read_oldest_first(path))
    assert resolved.spec is not None
    assert resolved.spec.columns is not None
    return RawInteractions(readers.read_table(path, resolved.spec.columns, resolved.spec.format))


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
    return readers.read_table(path, columns, config.format, dialect_of(config))


def dialect_of(config: DataConfig) -> readers.Dialect:
    """Say how tables of the user's are written."""
    separator = _NAMED_SEPARATORS.get(config.separator, config.separator)
    drops = config.on_bad_row == "drop"
    return readers.Dialect(separator, config.encoding, config.decimal, drops)


def _read_oldest_first(path: pathlib.Path) -> pl.DataFrame:
    """Read adjacency lists whose order is the order in time; row numbers are the timestamps."""
    frame = readers.read_adjacency(path)
    return frame.with_columns(timestamp=pl.int_range(pl.len(), dtype=pl.Int64))


def _read_split(folder: pathlib.Path, dialect: readers.Dialect) -> RawInteractions:
    """Read a split that comes as files."""
    parts = splits.read_predefined(folder, dialect=dialect)
    frames, labels = [], []
    for label, part in enumerate(("train", "valid", "test")):
        frame = parts[part]
        if frame is not None:
            # A repeated pair would be in training and validation where the latter is drawn.
            frame = frame.select("user", "item").unique(keep="first", maintain_order=True)
            frames.append(frame)
            labels.append(np.full(frame.height, label, np.int8))
    return RawInteractions(pl.concat(frames), np.concatenate(labels))


def _read_ncf(resolved: ResolvedData) -> RawInteractions:
    """Read a leave-one-out split; the last training item of each user becomes validation."""
    train_path, test_path, negatives_path = resolved.files
    given = readers.read_ncf(test_path, negatives_path)
    test = given.frame
    if resolved.unrated:
        train = _read_oldest_first(train_path)
        test = test.with_columns(timestamp=train.height + pl.int_range(pl.len(), dtype=pl.Int64))
        columns = ["user", "item", "timestamp"]
    else:
        train = readers.read_table(train_path, readers.Columns(0, 1, 2, 3), "tsv")
        columns = ["user", "item", "rating", "timestamp"]
    labels = np.full(train.height + test.height, splits.TRAIN, np.int8)
    labels[train.height :] = splits.TEST
    labels[_last_of_each(train["user"].to_numpy(), train["timestamp"].to_numpy())] = splits.VALID
    frame = pl.concat([train.select(columns), test.select(columns)], how="vertical_relaxed")
    return RawInteractions(frame, labels, (given.users, given.negatives))


def _last_of_each(users: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Find the newest row of each user with two rows or more; of equally new ones the last.

    Args:
      users: `[N]` user of each row.
      timestamps: `[N]` time of each row.

    Returns:
      Positions of rows, one for each of these users.
    """
    order = np.lexsort((timestamps, users))
    ordered = users[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return order[ends[np.diff(ends, prepend=-1) > 1]]

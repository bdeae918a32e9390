"""Which interactions train, which validate and which test.

The functions label rows: `TRAIN`, `VALID` or `TEST` for each of `N` interactions. The same
arguments give the same labels. Rounding:

* `random_split`, `global_time`: of `N` rows, `ceil(N * test_fraction)` test and
  `ceil(N * valid_fraction)` validate. Both fractions are of all rows, so 0.08 and 0.2 give the
  72/8/20 of HLR's paper (and the very counts of its code).
* `per_user_ratio`, `per_user_time`: of a user's `n` rows, `floor(n * test_fraction + 1/2)` test
  and `floor(n * valid_fraction + 1/2)` validate, but one row at least is left to train: the
  validation rows give way first, then the test rows.

Products are rounded to six decimals first, so that 0.07 * 100 counts as 7.
"""

import os
from collections.abc import Sequence

import numpy as np
import polars as pl

from hlr_jax.data import preprocessing, readers
from hlr_jax.errors import InputError

TRAIN, VALID, TEST = 0, 1, 2

_TABLES = ("csv", "tsv", "dat", "ndjson", "jsonl", "parquet")
_EXTENSIONS = (*_TABLES, "txt", *(f"{name}.gz" for name in (*_TABLES, "txt") if name != "parquet"))


def random_split(
    num_rows: int, valid_fraction: float, test_fraction: float, seed: int
) -> np.ndarray:
    """Label rows at random, as HLR's paper does.

    Args:
      num_rows: `N`.
      valid_fraction: of the rows, see the rounding rules above.
      test_fraction: likewise.
      seed: of the order of rows.

    Returns:
      `[num_rows]` int8 labels.

    Raises:
      InputError: nothing is left to train on, or there is nothing to test on.
    """
    order = np.random.default_rng(seed).permutation(num_rows)
    return _tail_labels(order, valid_fraction, test_fraction)


def global_time(timestamps: np.ndarray, valid_fraction: float, test_fraction: float) -> np.ndarray:
    """Test on the newest rows of all, validate on those before; at equal times by row order.

    Args:
      timestamps: `[N]` integers.
      valid_fraction: of the rows, see the rounding rules above.
      test_fraction: likewise.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: nothing is left to train on, or there is nothing to test on.
    """
    order = np.argsort(timestamps, kind="stable")
    return _tail_labels(order, valid_fraction, test_fraction)


def per_user_ratio(
    users: np.ndarray, valid_fraction: float, test_fraction: float, seed: int
) -> np.ndarray:
    """Label each user's rows at random in the given proportions.

    Args:
      users: `[N]` user of each row, counted from 0.
      valid_fraction: of the rows, see the rounding rules above.
      test_fraction: likewise.
      seed: of the order of rows.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: no user has rows enough for a test row.
    """
    keys = np.random.default_rng(seed).permutation(len(users))
    return _per_user_labels(users, keys, valid_fraction, test_fraction)


def per_user_time(
    users: np.ndarray, timestamps: np.ndarray | None, valid_fraction: float, test_fraction: float
) -> np.ndarray:
    """Test on each user's newest rows, validate on those before; at equal times by row order.

    Args:
      users: `[N]` user of each row, counted from 0.
      timestamps: `[N]` integers; None where the order of rows is the order in time.
      valid_fraction: of the rows, see the rounding rules above.
      test_fraction: likewise.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: no user has rows enough for a test row.
    """
    return _per_user_labels(users, timestamps, valid_fraction, test_fraction)


def leave_one_out(users: np.ndarray, timestamps: np.ndarray | None) -> np.ndarray:
    """Test on each user's last row, validate on the one before; at equal times by row order.

    Users with fewer than three rows only train.

    Args:
      users: `[N]` user of each row, counted from 0.
      timestamps: `[N]` integers; None where the order of rows is the order in time.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: no user has three rows.
    """
    after, counts = _rows_after(users, timestamps)
    labels = np.zeros(len(users), np.int8)
    labels[(after == 0) & (counts >= 3)] = TEST
    labels[(after == 1) & (counts >= 3)] = VALID
    return _checked(labels, "no user has three interactions; use another config.data.split")


def _tail_labels(order: np.ndarray, valid_fraction: float, test_fraction: float) -> np.ndarray:
    """Label the last rows of `order [N]` test and those before validation."""
    num_rows = order.size
    num_test, num_valid = (
        int(np.ceil(np.round(num_rows * fraction, 6)))
        for fraction in (test_fraction, valid_fraction)
    )
    labels = np.zeros(num_rows, np.int8)
    labels[order[max(num_rows - num_test - num_valid, 0) :]] = VALID
    labels[order[max(num_rows - num_test, 0) :]] = TEST
    return _checked(
        labels,
        f"{num_rows} interactions are too few for config.data.valid_fraction={valid_fraction} and "
        f"config.data.test_fraction={test_fraction}; give more data or use other fractions",
    )


def _per_user_labels(
    users: np.ndarray, keys: np.ndarray | None, valid_fraction: float, test_fraction: float
) -> np.ndarray:
    after, counts = _rows_after(users, keys)
    num_test = np.minimum(_nearest(counts, test_fraction), counts - 1)
    num_valid = np.minimum(_nearest(counts, valid_fraction), counts - 1 - num_test)
    labels = np.zeros(len(users), np.int8)
    labels[after < num_test + num_valid] = VALID
    labels[after < num_test] = TEST
    return _checked(
        labels,
        f"no user has enough interactions for config.data.test_fraction={test_fraction}; use a "
        "larger fraction or another config.data.split",
    )


def _nearest(counts: np.ndarray, fraction: float) -> np.ndarray:
    return np.floor(np.round(counts * fraction, 6) + 0.5).astype(np.int64)


def _rows_after(users: np.ndarray, keys: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """For each row, how many rows its user has after it in the order of `keys`, and in all.

    Returns:
      Two `[N]` int64 arrays.
    """
    users = np.asarray(users)
    # Both sorts are stable: equal keys keep the order of rows.
    order = np.argsort(users, kind="stable") if keys is None else np.lexsort((keys, users))
    starts = np.flatnonzero(np.diff(users[order], prepend=-1))  # [U], users count from 0
    counts = np.diff(starts, append=users.size)
    ends = np.repeat(starts + counts, counts)  # [N]
    after = np.empty(users.size, np.int64)
    after[order] = ends - 1 - np.arange(users.size)
    count_of_row = np.empty(users.size, np.int64)
    count_of_row[order] = np.repeat(counts, counts)
    return after, count_of_row


def _checked(labels: np.ndarray, fault: str) -> np.ndarray:
    if not (labels == TEST).any() or not (labels == TRAIN).any():
        raise InputError(fault)
    return labels


def read_predefined(
    folder: str | os.PathLike[str], columns: Sequence[str | int] = ("user", "item")
) -> dict[str, pl.DataFrame | None]:
    """Read a split kept as files `train`, `valid` and `test`; `valid` may be missing.

    Args:
      folder: holds each as a table (`train.csv`, `.tsv`, `.dat`, `.ndjson`, `.parquet`) or as
        lists `user item item ...` (`train.txt`); text maybe compressed (`.gz`).
      columns: user and item column of the tables.

    Returns:
      `train`, `valid` (None where there is no such file) and `test`, each with columns `user`
      and `item` in file order.

    Raises:
      InputError: a file is missing, there twice or cannot be used; ids are integers in one
        file and words in another; or a pair is in two of the files.
    """
    name = os.fspath(folder)
    if not os.path.isdir(name):
        raise InputError(f"{name}: no such folder; give one with train.csv, valid.csv and test.csv")
    paths = {split: _split_path(name, split) for split in ("train", "valid", "test")}
    frames = {split: _read_split(path, columns) for split, path in paths.items() if path}
    _check_same_types(paths, frames)
    _check_disjoint(paths, frames)
    return {split: frames.get(split) for split in paths}


def _split_path(folder: str, split: str) -> str:
    """The split's file; "" for validation pairs that are not there."""
    candidates = [os.path.join(folder, f"{split}.{extension}") for extension in _EXTENSIONS]
    found = [path for path in candidates if os.path.isfile(path)]
    if len(found) > 1:
        raise InputError(
            f"{found[0]}: {os.path.basename(found[1])} is there as well; keep one of them"
        )
    if not found and split != "valid":
        raise InputError(
            f"{folder}: has no {split}.csv, .tsv, .parquet or .txt (lists of user item item ...); "
            "train and test are needed, valid may be left out"
        )
    return found[0] if found else ""


def _read_split(path: str, columns: Sequence[str | int]) -> pl.DataFrame:
    if path.removesuffix(".gz").endswith(".txt"):
        return readers.read_adjacency(path)
    user, item = columns
    return readers.read_table(path, readers.Columns(user, item))


def _check_same_types(paths: dict[str, str], frames: dict[str, pl.DataFrame]) -> None:
    for split, frame in frames.items():
        if frame.schema != frames["train"].schema:
            raise InputError(
                f"{paths[split]}: ids are words in this file or in {paths['train']}, and integers "
                "in the other; use the same ids in all"
            )


def _check_disjoint(paths: dict[str, str], frames: dict[str, pl.DataFrame]) -> None:
    together = preprocessing.encode(pl.concat(frames.values()))
    num_items = together.item_ids.size
    keys = together.users.astype(np.int64) * num_items + together.items
    names = list(frames)
    files = np.repeat(np.arange(len(names)), [frame.height for frame in frames.values()])
    # The sort is stable, so a pair of two files has neighbours that differ in the file.
    order = np.argsort(keys, kind="stable")
    keys, files = keys[order], files[order]
    common = np.flatnonzero((keys[1:] == keys[:-1]) & (files[1:] != files[:-1]))
    if common.size:
        row = int(common[0])
        user = together.user_ids[keys[row] // num_items]
        item = together.item_ids[keys[row] % num_items]
        first, second = (paths[names[files[place]]] for place in (row, row + 1))
        raise InputError(
            f"{second}: user {user} and item {item} are in {first} as well ({common.size} such "
            "pairs in all files); keep each pair in one file"
        )

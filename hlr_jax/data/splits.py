"""Split interactions into train, validation and test.

The functions label each of `N` interactions (rows) `TRAIN`, `VALID` or `TEST`; `held_out_users`
has two more labels. Equal arguments give equal labels. Numbers of rows are rounded in this way:

* `random_split`, `global_time`: of `N` rows, `ceil(N * test_fraction)` are for testing and
  `ceil(N * valid_fraction)` for validation. Both are fractions of all rows, so 0.08 and 0.2 give
  the 72/8/20 split of HLR's paper, with exactly the numbers of its authors' code.
* `per_user_ratio`, `per_user_time`: of a user's `n` rows, `floor(n * test_fraction + 1/2)` are for
  testing and `floor(n * valid_fraction + 1/2)` for validation. But each user keeps at least one row
  for training, at the cost of validation rows first, and then of test rows.
* `held_out_users`: of `U` users, `ceil(U * test_fraction)` are for testing and
  `ceil(U * valid_fraction)` for validation; of such a user's `n` rows, `floor(n / 5)` are.

Before that, products are rounded to six decimals, so that 0.07 * 100 counts as 7.
"""

import os
from collections.abc import Sequence

import numpy as np
import polars as pl

from hlr_jax.data import preprocessing, readers
from hlr_jax.data.readers.columns import as_words
from hlr_jax.errors import InputError

TRAIN, VALID, TEST = 0, 1, 2
# Rows of held-out users: known when the user's other rows are ranked; of items that no training
# user has, which no model can know.
GIVEN, UNKNOWN = 3, 4
# Of a held-out user's rows, how many are to be predicted (Liang et al., WWW 2018, section 4.1).
_PREDICTED_SHARE = 0.2

_AS_USUAL = readers.Dialect()
_TABLES = ("csv", "tsv", "dat", "ndjson", "jsonl", "parquet")
_EXTENSIONS = (*_TABLES, "txt", *(f"{name}.gz" for name in (*_TABLES, "txt") if name != "parquet"))


def random_split(
    num_rows: int, valid_fraction: float, test_fraction: float, seed: int
) -> np.ndarray:
    """Split all rows at random, as HLR's paper does.

    Args:
      num_rows: the number of rows `N`.
      valid_fraction: of the rows; rounded as described above.
      test_fraction: likewise.
      seed: of the random order.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: nothing is left to train on, or there is nothing to test on.
    """
    order = np.random.default_rng(seed).permutation(num_rows)
    return _tail_labels(order, valid_fraction, test_fraction)


def global_time(timestamps: np.ndarray, valid_fraction: float, test_fraction: float) -> np.ndarray:
    """Test on the newest of all rows and validate on those before them.

    Of rows with the same timestamp, later rows count as newer.

    Args:
      timestamps: `[N]` integers.
      valid_fraction: of the rows; rounded as described above.
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
    """Split the rows of each user at random.

    Args:
      users: `[N]` user of each row, numbered from 0.
      valid_fraction: of a user's rows; rounded as described above.
      test_fraction: likewise.
      seed: of the random order.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: no user has enough rows for a test row.
    """
    keys = np.random.default_rng(seed).permutation(len(users))
    return _per_user_labels(users, keys, valid_fraction, test_fraction)


def per_user_time(
    users: np.ndarray, timestamps: np.ndarray | None, valid_fraction: float, test_fraction: float
) -> np.ndarray:
    """Test on each user's newest rows and validate on those before them.

    Of rows with the same timestamp, later rows count as newer.

    Args:
      users: `[N]` user of each row, numbered from 0.
      timestamps: `[N]` integers; None if the rows are in the order of time.
      valid_fraction: of a user's rows; rounded as described above.
      test_fraction: likewise.

    Returns:
      `[N]` int8 labels.

    Raises:
      InputError: no user has enough rows for a test row.
    """
    return _per_user_labels(users, timestamps, valid_fraction, test_fraction)


def leave_one_out(users: np.ndarray, timestamps: np.ndarray | None) -> np.ndarray:
    """Test on each user's newest row and validate on the one before it.

    Of rows with the same timestamp, later rows count as newer. All rows of users with fewer than
    three rows are for training.

    Args:
      users: `[N]` user of each row, numbered from 0.
      timestamps: `[N]` integers; None if the rows are in the order of time.

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


def held_out_users(
    users: np.ndarray, items: np.ndarray, valid_fraction: float, test_fraction: float, seed: int
) -> np.ndarray:
    """Hold users out for validation and test: strong generalization (Marlin, 2004).

    As in the protocol of Liang et al. (WWW 2018, section 4), nothing of a held-out user is trained
    on. Four fifths of its rows, chosen at random, are given when the others are ranked; all of
    them where the user has fewer than five. Rows of items that no training user has do not count.

    Args:
      users: `[N]` user of each row, numbered from 0.
      items: `[N]` item of each row, numbered from 0.
      valid_fraction: of the users; rounded as described above.
      test_fraction: likewise.
      seed: of the random orders of users and rows.

    Returns:
      `[N]` int8 labels, of which `GIVEN` and `UNKNOWN` are of held-out users.

    Raises:
      InputError: nothing is left to train on, or no test user has enough interactions.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(users.max(initial=-1) + 1)
    part = _tail_labels(order, valid_fraction, test_fraction, "users")[users]  # [N]
    is_known = np.zeros(items.max(initial=-1) + 1, bool)
    is_known[items[part == TRAIN]] = True
    labels = np.where(part == TRAIN, TRAIN, np.where(is_known[items], GIVEN, UNKNOWN))
    rows = rng.permutation(np.flatnonzero(labels == GIVEN))
    after, counts = _rows_after(users[rows], None)
    predicted = rows[after < np.floor(np.round(counts * _PREDICTED_SHARE, 6))]
    labels[predicted] = part[predicted]
    fault = (
        "config.data.split='held_out_users': no test user has five interactions with items of "
        "training users; hold more users out by config.data.test_fraction, or filter by "
        "config.data.core"
    )
    return _checked(labels.astype(np.int8), fault)


def last_of_users(users: np.ndarray, keys: np.ndarray, fraction: float) -> np.ndarray:
    """Find the last rows of each user in the order of `keys [N]`, ties in that of the rows.

    Args:
      users: `[N]` user of each row, numbered from 0.
      fraction: of a user's `n` rows; rounded as for `per_user_ratio`, at most `n - 1`.

    Returns:
      `[N]` whether a row is among them.
    """
    after, counts = _rows_after(users, keys)
    return after < np.minimum(_nearest(counts, fraction), counts - 1)


def _tail_labels(
    order: np.ndarray, valid_fraction: float, test_fraction: float, what: str = "interactions"
) -> np.ndarray:
    """Label the last of `order [N]` for testing and those before them for validation."""
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
        f"{num_rows} {what} are too few for config.data.valid_fraction={valid_fraction} and "
        f"config.data.test_fraction={test_fraction}; give more data or use other fractions",
    )


def _per_user_labels(
    users: np.ndarray, keys: np.ndarray | None, valid_fraction: float, test_fraction: float
) -> np.ndarray:
    """Label the last rows of each user, in the order of `keys [N]`, for testing and validation."""
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
    """Round `counts * fraction` to the nearest integers, and halves up."""
    return np.floor(np.round(counts * fraction, 6) + 0.5).astype(np.int64)


def _rows_after(users: np.ndarray, keys: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Count each user's rows.

    Args:
      users: `[N]` user of each row, numbered from 0.
      keys: `[N]` what to order the rows by; None for the order that they have.

    Returns:
      For each row, how many rows of the same user come after it in that order, `[N]` int64; and how
      many rows the user has, `[N]` int64.
    """
    users = np.asarray(users)
    # Both sorts are stable: equal keys keep the order of rows.
    order = np.argsort(users, kind="stable") if keys is None else np.lexsort((keys, users))
    starts = np.flatnonzero(np.diff(users[order], prepend=-1))  # [U]
    counts = np.diff(starts, append=users.size)
    ends = np.repeat(starts + counts, counts)  # [N]
    after = np.empty(users.size, np.int64)
    after[order] = ends - 1 - np.arange(users.size)
    count_of_row = np.empty(users.size, np.int64)
    count_of_row[order] = np.repeat(counts, counts)
    return after, count_of_row


def _checked(labels: np.ndarray, fault: str) -> np.ndarray:
    """Return the labels; without test or training rows, raise InputError with message `fault`."""
    if not (labels == TEST).any() or not (labels == TRAIN).any():
        raise InputError(fault)
    return labels


def read_predefined(
    folder: str | os.PathLike[str],
    columns: Sequence[str | int] = ("user", "item"),
    dialect: readers.Dialect = _AS_USUAL,
) -> dict[str, pl.DataFrame | None]:
    """Read a split that comes as files called train, valid and test; valid may be missing.

    Args:
      folder: each part is a table (`train.csv`, `.tsv`, `.dat`, `.ndjson`, `.parquet`) or
        adjacency lists with lines of `user item item ...` (`train.txt`). Text may be compressed
        (`.gz`).
      columns: the columns of tables that hold the user and the item.
      dialect: how tables are written.

    Returns:
      Frames `train`, `valid` (None if there is no such file) and `test`, each with columns `user`
      and `item`, in the order of the file. Ids are integers where they are in all files.

    Raises:
      InputError: a part is missing, has two files or cannot be read, or two files have the same
        pair of user and item.
    """
    name = os.fspath(folder)
    if not os.path.isdir(name):
        raise InputError(f"{name}: no such folder; give one with train.csv, valid.csv and test.csv")
    paths = {split: _split_path(name, split) for split in ("train", "valid", "test")}
    frames = {split: _read_split(path, columns, dialect) for split, path in paths.items() if path}
    frames = _with_same_types(frames)
    _check_disjoint(paths, frames)
    return {split: frames.get(split) for split in paths}


def _split_path(folder: str, split: str) -> str:
    """Return the path of a part of the split; "" if it is validation and there is none."""
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


def _read_split(path: str, columns: Sequence[str | int], dialect: readers.Dialect) -> pl.DataFrame:
    if path.removesuffix(".gz").endswith(".txt"):
        return readers.read_adjacency(path)
    user, item = columns
    return readers.read_table(path, readers.Columns(user, item), dialect=dialect)


def _with_same_types(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Make ids texts in all files if they are in one."""
    for column in ("user", "item"):
        types = {frame.schema[column] for frame in frames.values()}
        if len(types) > 1:
            frames = {
                part: frame.with_columns(as_words(frame[column])) for part, frame in frames.items()
            }
    return frames


def _check_disjoint(paths: dict[str, str], frames: dict[str, pl.DataFrame]) -> None:
    """Check that no pair of user and item is in two files."""
    together = preprocessing.encode(pl.concat(frames.values()))
    num_items = together.item_ids.size
    keys = together.users.astype(np.int64) * num_items + together.items
    names = list(frames)
    files = np.repeat(np.arange(len(names)), [frame.height for frame in frames.values()])
    # The sort is stable: a pair that is in two files has equal neighbours from different files.
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

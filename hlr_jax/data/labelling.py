"""Label interactions train, validation or test by the rules that a configuration names."""

import numpy as np
import polars as pl

from hlr_jax.config import DataConfig
from hlr_jax.data import registry, splits
from hlr_jax.data.preprocessing import Encoded
from hlr_jax.errors import InputError


def split(config: DataConfig, rule: str, frame: pl.DataFrame, encoded: Encoded) -> np.ndarray:
    """Split interactions by a rule, any but `fixed`.

    Args:
      config: with fractions and seed; its name is for the error.
      rule: of `config.data.split`.
      frame: `N` rows, of which a split by time reads `timestamp`.
      encoded: their numbers.

    Returns:
      `[N]` int8 labels of `splits`.

    Raises:
      InputError: there are no timestamps to split by, or too few interactions or users.
    """
    users, fractions = encoded.users, (config.valid_fraction, config.test_fraction)
    if rule == "none":
        return np.full(users.size, splits.TRAIN, np.int8)
    if rule == "random":
        return splits.random_split(users.size, *fractions, config.split_seed)
    if rule == "per_user":
        return splits.per_user_ratio(users, *fractions, config.split_seed)
    if rule == "held_out_users":
        return splits.held_out_users(users, encoded.items, *fractions, config.split_seed)
    if "timestamp" not in frame.columns:
        raise InputError(
            f"config.data.split={rule!r}: data set {config.name!r} has no timestamps; use random, "
            "per_user or held_out_users"
            + (", or name config.data.timestamp_column" if config.name == registry.OWN_FILE else "")
        )
    timestamps = frame["timestamp"].to_numpy()
    if rule == "leave_one_out":
        return splits.leave_one_out(users, timestamps)
    if rule == "global_time":
        return splits.global_time(timestamps, *fractions)
    return splits.per_user_time(users, timestamps, *fractions)


def with_validation(labels: np.ndarray, users: np.ndarray, config: DataConfig) -> np.ndarray:
    """Draw the validation part of a fixed split, unless it ships one that is to be kept.

    Args:
      labels: `[N]` int8; rows that are shipped as validation may be drawn for training.
      users: `[N]` user of each row, in the order of the files.
      config: with `valid_split`, `valid_fraction` and `split_seed`.

    Returns:
      `[N]` int8 labels; those of test rows are as they were.

    Raises:
      InputError: no user has enough interactions for one in validation.
    """
    rule = config.valid_split
    if not rule and (labels == splits.VALID).any():
        return labels
    rows = np.flatnonzero(labels != splits.TEST)
    rng = np.random.default_rng(config.split_seed)
    if rule == "per_user":
        order = rng.permutation(rows.size)
        moved = rows[splits.last_of_users(users[rows], order, config.valid_fraction)]
    elif rule == "per_user_last":
        # Nobody knows where shipped validation rows stood among the others: they count as first.
        order = labels[rows] == splits.TRAIN
        moved = rows[splits.last_of_users(users[rows], order, config.valid_fraction)]
    else:
        moved = rng.permutation(rows)[: round(config.valid_fraction * rows.size)]
    if rule and not moved.size:
        raise InputError(
            f"config.data.valid_split={rule!r}: there are too few interactions for "
            f"config.data.valid_fraction={config.valid_fraction}; use a larger fraction"
        )
    drawn = np.where(labels == splits.TEST, splits.TEST, splits.TRAIN).astype(np.int8)
    drawn[moved] = splits.VALID
    return drawn


def full_users(encoded: Encoded, labels: np.ndarray) -> np.ndarray:
    """Find users who are known to have every item when the test is ranked.

    Args:
      encoded: `N` interactions; a pair may stand there several times.
      labels: `[N]` int8 labels of `splits`.

    Returns:
      `[U]` whether a user is one.
    """
    num_items = encoded.item_ids.size
    known = np.isin(labels, (splits.TRAIN, splits.VALID, splits.GIVEN))
    counts = np.bincount(encoded.users[known], minlength=encoded.user_ids.size)
    full = counts >= num_items
    # Sure where nobody has an item twice; else the few who may be are counted again.
    for user in np.flatnonzero(full):
        full[user] = np.unique(encoded.items[known & (encoded.users == user)]).size >= num_items
    return full

"""Draw which rows of a source each step of an epoch takes; on the host, as functions of a key."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Int, Key


def num_steps(num_rows: int, batch_size: int) -> int:
    """Count the steps of an epoch; the last batch may be short."""
    return -(-num_rows // batch_size)


def epoch_order(key: Key[Array, ""], num_rows: int, batch_size: int) -> Int[np.ndarray, "steps b"]:
    """Put every row once, in random order, into batches; -1 pads the last.

    Drawn on the host, where a long list is shuffled many times faster than a device sorts it.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    return in_batches(np.random.default_rng(seed).permutation(num_rows), batch_size)


def in_batches(rows: Int[np.ndarray, "n"], batch_size: int) -> Int[np.ndarray, "steps b"]:
    """Divide rows into batches in their order; -1 pads the last."""
    steps = num_steps(len(rows), batch_size)
    padding = steps * batch_size - len(rows)
    padded = np.pad(rows.astype(np.int32), (0, padding), constant_values=-1)
    return padded.reshape(steps, batch_size)


def orders_by_part(
    key: Key[Array, ""],
    bounds: Int[np.ndarray, "parts_plus_1"],
    batch_size: int,
    groups: Sequence[slice],
    wanted: Sequence[int],
) -> Int[np.ndarray, "groups steps b"]:
    """Draw the `epoch_order` of rows that are divided into parts, for groups of consecutive parts.

    Every part is shuffled by itself and spread evenly over the steps, so that a step's batch is
    the same however the parts are grouped, and nobody needs to know the rows of all parts.

    Args:
      bounds: part `j` has the rows `bounds[j] .. bounds[j + 1] - 1`.
      groups: the parts of each group.
      wanted: numbers of the groups to return.

    Returns:
      Rows counted from the first row of their group; -1 fills batches up to one size, the same
      for all groups.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    sizes = np.diff(bounds)
    steps = num_steps(int(bounds[-1] - bounds[0]), batch_size)
    # Parts round at different steps, or batches of many small parts would be of unequal sizes.
    phase = (steps * np.arange(len(sizes)) // len(sizes))[:, None]
    starts = (sizes[:, None] * np.arange(steps + 1) + phase) // steps
    counts = [np.diff(starts[group]).sum(axis=0) for group in groups]
    most = max(int(count.max(initial=0)) for count in counts)
    orders = np.full((len(wanted), steps, most), -1, np.int32)
    for order, group in zip(orders, (groups[number] for number in wanted), strict=True):
        filled = np.zeros(steps, np.int64)
        for part in range(len(sizes))[group]:
            shuffled = np.random.default_rng([*seed, part]).permutation(sizes[part])
            step = np.repeat(np.arange(steps), np.diff(starts[part]))
            within = np.arange(sizes[part]) - starts[part][step]
            order[step, filled[step] + within] = bounds[part] - bounds[group.start] + shuffled
            filled += np.diff(starts[part])
    return orders


def split(batches: Int[np.ndarray, "steps b"], parts: int) -> Int[np.ndarray, "parts steps c"]:
    """Divide batches between devices in order; -1 fills the last parts up."""
    padding = -batches.shape[1] % parts
    batches = np.pad(batches, ((0, 0), (0, padding)), constant_values=-1)
    return np.moveaxis(batches.reshape(len(batches), parts, -1), 1, 0)

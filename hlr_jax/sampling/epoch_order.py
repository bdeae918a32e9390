"""Draw which rows of a source each step of an epoch takes.

Which places of an order a step takes is found once, on the host. Which row stands at each place is
drawn on the device for every epoch, as a function of a key.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from hlr_jax.kernels.sizes import order_slice
from hlr_jax.sampling.random import permuted


def num_steps(num_rows: int, batch_size: int) -> int:
    """Count the steps of an epoch; the last batch may be short."""
    return -(-num_rows // batch_size)


def in_batches(rows: Int[np.ndarray, "n"], batch_size: int) -> Int[np.ndarray, "steps b"]:
    """Divide rows into batches in their order; -1 pads the last."""
    steps = num_steps(len(rows), batch_size)
    padding = steps * batch_size - len(rows)
    padded = np.pad(rows.astype(np.int32), (0, padding), constant_values=-1)
    return padded.reshape(steps, batch_size)


def places_by_part(
    bounds: Int[np.ndarray, "parts_plus_1"],
    batch_size: int,
    groups: Sequence[slice],
    wanted: Sequence[int],
) -> Int[np.ndarray, "groups steps b"]:
    """Find the places of each step, where rows are divided into parts, for groups of these.

    Every part is spread evenly over the steps, so that a step's batch is the same however the parts
    are grouped, and nobody needs to know the rows of all parts.

    Args:
      bounds: part `j` has the places `bounds[j] .. bounds[j + 1] - 1`.
      groups: consecutive parts of each group.
      wanted: numbers of the groups to return.

    Returns:
      Places among all; -1 fills batches up to one size, the same for all groups.
    """
    sizes = np.diff(bounds)
    steps = num_steps(int(bounds[-1] - bounds[0]), batch_size)
    # Parts round at different steps, or batches of many small parts would be of unequal sizes.
    phase = (steps * np.arange(len(sizes)) // len(sizes))[:, None]
    starts = (sizes[:, None] * np.arange(steps + 1) + phase) // steps
    counts = [np.diff(starts[group]).sum(axis=0) for group in groups]
    most = max(int(count.max(initial=0)) for count in counts)
    places = np.full((len(wanted), steps, most), -1, np.int32)
    for of_group, group in zip(places, (groups[number] for number in wanted), strict=True):
        filled = np.zeros(steps, np.int64)
        for part in range(len(sizes))[group]:
            step = np.repeat(np.arange(steps), np.diff(starts[part]))
            within = np.arange(sizes[part]) - starts[part][step]
            of_group[step, filled[step] + within] = bounds[part] + np.arange(sizes[part])
            filled += np.diff(starts[part])
    return places


def shuffled(
    key: Key[Array, ""],
    places: Int[Array, "*n"],
    bounds: Int[Array, "parts_plus_1"],
) -> Int[Array, "*n"]:
    """Draw the row that stands at each place: every part is shuffled by itself; -1 stays.

    A row depends on its place alone, so that devices each find those of their places, and no list
    is sorted.

    Args:
      bounds: of the parts, as in `places_by_part`.
    """

    def of_slice(places: Array) -> Array:
        # An empty part begins and ends at one place, which is in the last part that does.
        part = jnp.searchsorted(bounds[1:], places, side="right", method="compare_all")
        part = jnp.minimum(part.astype(jnp.int32), len(bounds) - 2)
        within = jnp.maximum(places, 0) - bounds[part]
        rows = bounds[part] + permuted(key, within, part, jnp.diff(bounds))
        return jnp.where(places < 0, -1, rows)

    size = order_slice(places.size)
    slices = jnp.pad(places.reshape(-1), (0, -places.size % size), constant_values=-1)
    slices = slices.reshape(-1, size)
    rows = of_slice(slices[0]) if len(slices) == 1 else jax.lax.map(of_slice, slices)
    return rows.reshape(-1)[: places.size].reshape(places.shape)


def split(batches: Int[np.ndarray, "steps b"], parts: int) -> Int[np.ndarray, "parts steps c"]:
    """Divide batches between devices in order; -1 fills the last parts up."""
    padding = -batches.shape[1] % parts
    batches = np.pad(batches, ((0, 0), (0, padding)), constant_values=-1)
    return np.moveaxis(batches.reshape(len(batches), parts, -1), 1, 0)

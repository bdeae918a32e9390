"""Draw negatives and histories as hlr_jax does, in PyTorch for a whole batch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import torch_device
from hlr_jax.data import Interactions


class Rows(NamedTuple):
    """Interactions as tensors.

    Attributes:
      users, items, position: `[N]`; `position` is the item's place in its user's row.
      offsets: `[U + 1]`; user `u` owns `items[offsets[u]:offsets[u + 1]]`, increasing.
      longest: the most items that any user has.
    """

    users: Tensor
    items: Tensor
    position: Tensor
    offsets: Tensor
    longest: int
    num_items: int

    @classmethod
    def of(cls, interactions: Interactions) -> "Rows":
        users = torch_device.tensor(interactions.users).long()
        offsets = torch_device.tensor(interactions.offsets)
        return cls(
            users,
            torch_device.tensor(interactions.items).long(),
            torch.arange(len(interactions), device=users.device) - offsets[users],
            offsets,
            int(interactions.counts.max(initial=0)),
            interactions.num_items,
        )


class Batch(NamedTuple):
    """Triplets of one step.

    Attributes:
      users: `[B]`.
      items: `[B, 1 + K]`; the positive first.
      history, mask: `[B, P]`, or None where the model reads no history.
    """

    users: Tensor
    items: Tensor
    history: Tensor | None
    mask: Tensor | None


def random_batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `rows [N]` in random order, `[size]` at a time, for ever, without short batches."""
    while True:
        for batch in rows[torch.randperm(len(rows), device=rows.device)].split(size):
            if len(batch) == size:
                yield batch


def _below(bound: Tensor, size: tuple[int, ...]) -> Tensor:
    """Draw uniform integers from 0 to `bound - 1`, which broadcasts to `size`."""
    return (torch.rand(size, dtype=torch.float64, device=bound.device) * bound).long()


def unseen_items(rows: Rows, users: Tensor, num: int) -> Tensor:
    """Draw `[B, num]` items, each uniformly from those that its user has not seen.

    The rank among the unseen items is drawn; a binary search finds how many seen ones precede it.
    """
    start, stop = rows.offsets[users][:, None], rows.offsets[users + 1][:, None]
    rank = _below(rows.num_items - (stop - start), (len(users), num))
    low, high = start.expand_as(rank), stop.expand_as(rank)
    last = len(rows.items) - 1
    for _ in range(rows.longest.bit_length()):
        middle = (low + high) // 2
        unseen_before = rows.items[middle.clamp(max=last)] - (middle - start)
        ahead = (low < high) & (unseen_before <= rank)
        low, high = torch.where(ahead, middle + 1, low), torch.where(ahead, high, middle)
    return rank + (low - start)


def histories(
    rows: Rows, users: Tensor, position: Tensor | None, length: int
) -> tuple[Tensor, Tensor]:
    """Draw items of each user without replacement and without a target: items and mask `[B, P]`.

    Floyd's algorithm (Bentley and Floyd 1987); a table of marks says what is taken already.

    Args:
      position: `[B]` place of the target in its user's row; None where there is no target.
      length: `P`.
    """
    start = rows.offsets[users][:, None]
    count = rows.offsets[users + 1][:, None] - start
    if position is not None:
        count = count - 1
    size = count.clamp(max=length)
    step = torch.arange(length, device=start.device)
    last = count - size + step
    draws = _below(last + 1, last.shape)
    mask = step < size
    # Beyond the mask `last` may leave the table; what is taken there does not matter.
    inside = last.clamp(max=rows.longest - 1)
    draws = draws.clamp(max=rows.longest - 1)
    marks = torch.zeros(len(users), rows.longest, dtype=torch.bool, device=start.device)
    chosen = torch.empty_like(draws)
    for i in range(length):
        draw = draws[:, i : i + 1]
        taken = torch.where(marks.gather(1, draw), inside[:, i : i + 1], draw)
        marks.scatter_(1, taken, True)
        chosen[:, i : i + 1] = taken
    if position is not None:
        # Step over the target.
        chosen = chosen + (chosen >= position[:, None])
    return rows.items[torch.where(mask, start + chosen, 0)], mask


def draw_batch(
    rows: Rows,
    chosen: Tensor,
    negatives: int,
    history_length: int,
    unseen_items: Callable[[Rows, Tensor, int], Tensor] = unseen_items,
) -> Batch:
    """Complete the positives `chosen [B]`, numbers of interactions, to triplets.

    Args:
      unseen_items: what draws negatives; the function above, or the same compiled.
    """
    users = rows.users[chosen]
    items = torch.cat([rows.items[chosen, None], unseen_items(rows, users, negatives)], 1)
    if not history_length:
        return Batch(users, items, None, None)
    return Batch(users, items, *histories(rows, users, rows.position[chosen], history_length))

"""Draw negatives and histories as hlr_jax does, in PyTorch for a whole batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.peers import torch_device
from hlr_jax.data import Interactions


class Rows(nn.Module):
    """Interactions as tensors, which stay where they are, as a CUDA graph needs them.

    Attributes:
      users, items, position: `[N]`; `position` is the item's place in its user's row.
      offsets: `[U + 1]`; user `u` owns `items[offsets[u]:offsets[u + 1]]`, increasing.
      longest: the most items that any user has.
    """

    users: Tensor
    items: Tensor
    position: Tensor
    offsets: Tensor

    def __init__(self, interactions: Interactions) -> None:
        super().__init__()
        users = torch_device.tensor(interactions.users).long()
        offsets = torch_device.tensor(interactions.offsets)
        self.register_buffer("users", users)
        self.register_buffer("items", torch_device.tensor(interactions.items).long())
        place = torch.arange(len(interactions), device=users.device)
        self.register_buffer("position", place - offsets[users])
        self.register_buffer("offsets", offsets)
        self.longest = int(interactions.counts.max(initial=0))
        self.num_items = interactions.num_items


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

    Floyd's algorithm (Bentley and Floyd 1987): of a draw from `0..last`, take `last` instead where
    it is taken already, with `last` going through the last `P` places.

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
    first = count - size
    draws = _below(first + step + 1, (len(users), length))
    floyd = floyd_at_once if start.is_cuda else floyd_by_steps
    chosen = floyd(draws, first, rows.longest)
    mask = step < size
    if position is not None:
        # Step over the target.
        chosen = chosen + (chosen >= position[:, None])
    return rows.items[torch.where(mask, start + chosen, 0)], mask


def floyd_by_steps(draws: Tensor, first: Tensor, longest: int) -> Tensor:
    """Choose places `[B, P]`, one after the other; a table of marks says what is taken already.

    The fastest on a CPU.

    Args:
      draws: `[B, P]`; of step `i` from `0..first + i`.
      first: `[B, 1]`.
      longest: more than any place that counts.
    """
    # Beyond the mask draws may leave the table; what is taken there does not matter.
    draws = draws.clamp(max=longest - 1)
    marks = torch.zeros(len(draws), longest, dtype=torch.bool, device=draws.device)
    chosen = torch.empty_like(draws)
    for i in range(draws.shape[1]):
        draw, last = draws[:, i : i + 1], (first + i).clamp(max=longest - 1)
        taken = torch.where(marks.gather(1, draw), last, draw)
        marks.scatter_(1, taken, True)
        chosen[:, i : i + 1] = taken
    return chosen


def floyd_at_once(draws: Tensor, first: Tensor, longest: int) -> Tensor:
    """Choose the same places without a loop over them; arguments as of `floyd_by_steps`.

    A draw is taken already if an earlier step drew it, or if it is the `last` of an earlier step
    whose own draw was taken. The latter makes chains of steps, which are followed by doubling.
    """
    length = draws.shape[1]
    step = torch.arange(length, device=draws.device)
    is_earlier = step < step[:, None]
    is_taken = ((draws[:, :, None] == draws[:, None, :]) & is_earlier).any(-1)
    of_step = draws - first
    of_step = torch.where((of_step >= 0) & (of_step < step), of_step, step)
    for _ in range((length - 1).bit_length()):
        is_taken = is_taken | is_taken.gather(1, of_step)
        of_step = of_step.gather(1, of_step)
    return torch.where(is_taken, first + step, draws)


def draw_batch(rows: Rows, chosen: Tensor, negatives: int, history_length: int) -> Batch:
    """Complete the positives `chosen [B]`, numbers of interactions, to triplets."""
    users = rows.users[chosen]
    items = torch.cat([rows.items[chosen, None], unseen_items(rows, users, negatives)], 1)
    if not history_length:
        return Batch(users, items, None, None)
    return Batch(users, items, *histories(rows, users, rows.position[chosen], history_length))

"""Train CML with the full softmax in PyTorch, on batches of users with all of their items."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import torch_device
from benchmarks.peers.plain_pytorch import project
from benchmarks.peers.torch_sampling import random_batches
from hlr_jax.data import Interactions


def loss(user: Tensor, item: Tensor, seen: Tensor, temperature: float) -> Tensor:
    """Sum `-log p` over the items of users `[u, d]`, each among itself and the unseen ones.

    Args:
      item: `[i, d]`.
      seen: `[u, i]` bool.
    """
    squares = user.square().sum(-1)[:, None] + item.square().sum(-1)
    logits = (2 * user @ item.T - squares) / temperature
    others = torch.logsumexp(logits.masked_fill(seen, -torch.inf), -1, keepdim=True)
    return (torch.nn.functional.softplus(others - logits) * seen).sum()


class UserBatchTrainer:
    """Training steps; the short last batch of an epoch is left out.

    Args:
      compiled: whether loss and projection go through `torch.compile`.
    """

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        interactions: Interactions,
        batch_size: int,
        temperature: float,
        learning_rate: float,
        compiled: bool,
    ) -> None:
        self.user, self.item = (
            torch.nn.Parameter(torch_device.tensor(params[name])) for name in ("user", "item")
        )
        self.optimizer = torch.optim.Adam([self.user, self.item], lr=learning_rate, fused=True)
        # A row of items for each user, padded with an id past the last item.
        counts = torch_device.tensor(interactions.counts)
        self.num_items = interactions.num_items
        places = torch.arange(int(counts.max()), device=counts.device)
        filled = places < counts[:, None]
        self.items = torch.full(filled.shape, self.num_items, device=counts.device)
        self.items[filled] = torch_device.tensor(interactions.items).long()
        self.temperature = temperature
        self.loss, self.project = loss, project
        if compiled:
            self.loss, self.project = (torch.compile(x, dynamic=False) for x in (loss, project))
        self.batches = random_batches(torch.nonzero(counts)[:, 0], batch_size)

    def loss_of(self, users: Tensor) -> Tensor:
        """Compute the summed loss of all items of these users."""
        seen = self.items.new_zeros(len(users), self.num_items + 1, dtype=torch.bool)
        seen.scatter_(1, self.items[users], True)
        rows = torch.nn.functional.embedding(users, self.user)
        return self.loss(rows, self.item, seen[:, :-1], self.temperature)

    def run(self, steps: int) -> None:
        """Take steps, and wait for the last."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.loss_of(next(self.batches)).backward()
            self.optimizer.step()
            with torch.no_grad():
                self.project(self.user)
                self.project(self.item)
        torch_device.wait()

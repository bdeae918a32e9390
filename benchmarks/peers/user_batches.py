"""Train CML with the full softmax in PyTorch, on batches of users with all of their items."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import torch_device
from benchmarks.peers.plain_pytorch import Setting
from benchmarks.peers.torch_training import Task, Trainer, project


class UserBatch(NamedTuple):
    """Users `[u]`, and whether they have seen an item, `[u, i]`."""

    users: Tensor
    seen: Tensor


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


class UserBatches(Task):
    """CML, trained on all items of a batch of users."""

    items: Tensor

    def __init__(self, setting: Setting, temperature: float) -> None:
        super().__init__()
        self.user, self.item = (
            torch.nn.Parameter(torch_device.tensor(setting.params[name]))
            for name in ("user", "item")
        )
        self.temperature = temperature
        # A row of items for each user, padded with an id past the last item.
        counts = torch_device.tensor(setting.interactions.counts)
        self.num_items = setting.interactions.num_items
        places = torch.arange(int(counts.max()), device=counts.device)
        filled = places < counts[:, None]
        items = torch.full(filled.shape, self.num_items, device=counts.device)
        items[filled] = torch_device.tensor(setting.interactions.items).long()
        self.register_buffer("items", items)

    def draw(self, chosen: Tensor) -> UserBatch:
        seen = self.items.new_zeros(len(chosen), self.num_items + 1, dtype=torch.bool)
        return UserBatch(chosen, seen.scatter_(1, self.items[chosen], True)[:, :-1])

    def forward(self, batch: UserBatch) -> Tensor:
        rows = torch.nn.functional.embedding(batch.users, self.user)
        return loss(rows, self.item, batch.seen, self.temperature)

    def project(self) -> None:
        project(self.user)
        project(self.item)

    def given(self, arrays: np.ndarray) -> UserBatch:
        return self.draw(torch_device.tensor(arrays).long())


def user_batch_trainer(setting: Setting, temperature: float, form: str) -> Trainer:
    """Build a trainer of CML on batches of `setting.shape.batch_size` users, in one of `forms`."""
    torch_device.use(setting.platform)
    torch_device.allow_tf32()
    task = UserBatches(setting, temperature)
    rows = torch.nonzero(torch_device.tensor(setting.interactions.counts))[:, 0]
    return Trainer(task, rows, setting.shape.batch_size, setting.learning_rate, form)

"""Train and rank with CML, LRML, HLR and HLR++, written in PyTorch from their equations.

Relations `[.., P, d]` to the references of a history are built, then attended over.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import torch_device
from benchmarks.peers.torch_sampling import Batch, Rows, draw_batch
from benchmarks.peers.torch_training import Task, Trainer, project
from benchmarks.shapes import Shape
from hlr_jax.data import Interactions


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on what, and where; can be sent to another process.

    Attributes:
      platform: `cpu` or `gpu`.
      params: to start from; see `PlainModel`.
    """

    platform: str
    shape: Shape
    interactions: Interactions
    params: Mapping[str, np.ndarray]
    margin: float
    learning_rate: float

    @property
    def history_length(self) -> int:
        """`P`; 0 where the model reads no history."""
        return self.shape.history_length if self.shape.has_history else 0


def read_memory(x: Tensor, y: Tensor, key: Tensor, memory: Tensor) -> Tensor:
    """Compute `softmax((x * y) @ key) @ memory`, `[.., d]` for `x [.., d]` and `y [.., d]`."""
    return torch.softmax((x * y) @ key, -1) @ memory


def attend(query: Tensor, relations: Tensor, mask: Tensor) -> Tensor:
    """Attend with `query [.., d]` over valid `relations [.., P, d]`; returns `[.., d]`."""
    logits = (relations @ query[..., None])[..., 0]
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    weights = torch.softmax(logits, -1) * mask
    return (weights[..., None, :] @ relations)[..., 0, :]


class PlainModel(nn.Module):
    """Tables and memory, started from arrays.

    Args:
      name: cml, lrml, hlr (with the user as a reference) or hlrpp.
      params: `user [U, d]`, `item [I, d]`, and for all but cml `key [d, M]`, `memory [M, d]`.
      margin: of the hinge.
    """

    def __init__(self, name: str, params: Mapping[str, np.ndarray], margin: float) -> None:
        super().__init__()
        self.name, self.margin = name, margin
        for field, value in params.items():
            self.register_parameter(field, nn.Parameter(torch_device.tensor(value)))

    def relation(
        self, user: Tensor, item: Tensor, history: Tensor | None, mask: Tensor | None
    ) -> Tensor | float:
        """Compute `r [*b, d]` of `user`, `item [*b, d]`, `history [*b, P, d]`, `mask [*b, P]`.

        Batch axes of size 1 stretch.
        """
        if self.name == "cml":
            return 0.0
        if self.name == "lrml":
            return read_memory(user, item, self.key, self.memory)
        with_one_more = F.pad(mask, (1, 0), value=True)
        if self.name == "hlr":
            references = torch.cat([user[..., None, :], history], -2)
            relations = read_memory(item[..., None, :], references, self.key, self.memory)
            return attend(user, relations, with_one_more)
        of_item = read_memory(item[..., None, :], history, self.key, self.memory)
        of_user = self._relations_of_user(user, item, history)
        return attend(user, of_item, mask) + attend(item, of_user, with_one_more)

    def _relations_of_user(self, user: Tensor, item: Tensor, history: Tensor) -> Tensor:
        """Stack `[*b, 1 + P, d]`: relations to the item, then to the history, shared by items."""
        to_item = read_memory(user, item, self.key, self.memory)[..., None, :]
        to_history = read_memory(user[..., None, :], history, self.key, self.memory)
        batch = to_item.shape[:-2]
        return torch.cat([to_item, to_history.expand(*batch, *to_history.shape[-2:])], -2)

    def distances(
        self, user: Tensor, item: Tensor, history: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Compute `||user + r - item||^2`; arguments as of `relation`."""
        translated = user + self.relation(user, item, history, mask)
        return (translated - item).square().sum(-1)

    def forward(self, batch: Batch) -> Tensor:
        """Sum the hinge over all triplets of a batch."""
        # The gradient of F.embedding is summed faster than that of an index.
        user = F.embedding(batch.users, self.user)[:, None]
        items = F.embedding(batch.items, self.item)
        history = mask = None
        if batch.history is not None:
            history = F.embedding(batch.history, self.item)[:, None]
            mask = batch.mask[:, None]
        distances = self.distances(user, items, history, mask)
        return torch.relu(distances[:, :1] - distances[:, 1:] + self.margin).sum()

    def scores(
        self, users: Tensor, items: Tensor, history: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Compute `-||u + r - i||^2` of `users [u, d]`, `items [i, d]`, `history [u, P, d]`."""
        if self.name == "cml":
            norms = users.square().sum(-1)[:, None] + items.square().sum(-1)
            return 2 * users @ items.T - norms
        if history is not None:
            history, mask = history[:, None], mask[:, None]
        return -self.distances(users[:, None], items[None], history, mask)


class Triplets(Task):
    """A model, trained on triplets of a user, an item of its own and unseen ones."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.model = PlainModel(setting.shape.model, setting.params, setting.margin)
        self.rows = Rows(setting.interactions)
        self.sizes = setting.shape.negatives, setting.history_length
        # On a CPU the loop that draws histories takes minutes to compile, and runs slower then.
        self.compiles_draw = torch_device.is_gpu() or not setting.history_length

    def draw(self, chosen: Tensor) -> Batch:
        return draw_batch(self.rows, chosen, *self.sizes)

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch)

    def project(self) -> None:
        project(self.model.user)
        project(self.model.item)

    def given(self, arrays: tuple[np.ndarray | None, ...]) -> Batch:
        users, items, history, mask = (
            None if x is None else torch_device.tensor(x) for x in arrays
        )
        return Batch(users.long(), items.long(), None if mask is None else history.long(), mask)


def plain_trainer(setting: Setting, form: str) -> Trainer:
    """Build a trainer of triplets, in one of `forms`."""
    torch_device.use(setting.platform)
    torch_device.allow_tf32()
    task = Triplets(setting)
    rows = torch.arange(len(setting.interactions), device=torch_device.device())
    return Trainer(task, rows, setting.shape.batch_size, setting.learning_rate, form)

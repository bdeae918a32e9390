"""Train and rank with CML, LRML, HLR and HLR++, written in PyTorch from their equations.

Relations `[.., P, d]` to the references of a history are built, then attended over.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import torch_device
from benchmarks.peers.torch_sampling import (
    Batch,
    Rows,
    draw_batch,
    histories,
    random_batches,
    unseen_items,
)
from hlr_jax.data import Interactions


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


def project(rows: Tensor, radius: float = 1.0) -> None:
    """Project each row on the ball, in place."""
    rows.mul_(radius / rows.norm(dim=1, keepdim=True).clamp_min(radius))


class PlainTrainer:
    """Training steps, sampling included; the short last batch of an epoch is left out.

    Args:
      compiled: whether negatives, loss and projection go through `torch.compile`.
    """

    def __init__(
        self,
        model: PlainModel,
        interactions: Interactions,
        batch_size: int,
        negatives: int,
        history_length: int,
        learning_rate: float,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.rows = Rows.of(interactions)
        self.sizes = negatives, history_length
        # The fused kernel is the fastest of PyTorch's Adams on CPUs too.
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
        self.unseen_items, self.loss, self.project = unseen_items, model, project
        if compiled:
            # Shapes never change. The loop that draws histories is left as it is: compiled, it
            # takes minutes to compile and runs many times slower.
            self.unseen_items, self.loss, self.project = (
                torch.compile(part, dynamic=False) for part in (unseen_items, model, project)
            )
        self.batches = random_batches(
            torch.arange(len(self.rows.items), device=torch_device.device()), batch_size
        )

    def run(self, steps: int) -> None:
        """Take steps, and wait for the last."""
        for _ in range(steps):
            with torch.no_grad():
                batch = draw_batch(
                    self.rows, next(self.batches), *self.sizes, unseen_items=self.unseen_items
                )
            self.step(batch)
        torch_device.wait()

    def step(self, batch: Batch) -> None:
        """Compute the gradient, update by Adam, project the tables."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()
        with torch.no_grad():
            self.project(self.model.user)
            self.project(self.model.item)


class PlainRanker:
    """Top-k of the full catalogue, by relations of a chunk of users with a chunk of items.

    Args:
      budget: bytes that the relation tensor of a chunk may take.
      compiled: whether scores go through `torch.compile`.
    """

    def __init__(
        self,
        model: PlainModel,
        interactions: Interactions,
        history_length: int,
        k: int,
        budget: int = 2**30,
        compiled: bool = False,
    ) -> None:
        self.model, self.interactions = model, interactions
        self.rows = Rows.of(interactions)
        self.history_length, self.k, self.budget = history_length, k, budget
        self.scores = torch.compile(model.scores, dynamic=True) if compiled else model.scores

    @torch.inference_mode()
    def top_k(
        self, users: np.ndarray, drawn: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return item ids and scores, both `[users, k]`, best first, without the users' own items.

        Args:
          drawn: history items and mask `[users, P]` to use; None draws them.
        """
        # CML has no relation: a score is all that a pair needs.
        floats = 1 if self.model.name == "cml" else self.model.item.shape[1]
        per_pair = 4 * floats * max(self.history_length, 1)
        pairs = max(self.budget // per_pair, 1)
        step = max(pairs // len(self.model.item), 1)
        best = []
        for start in range(0, len(users), step):
            chunk = slice(start, start + step)
            scores = self._scores_of(users[chunk], drawn and tuple(x[chunk] for x in drawn), pairs)
            best.append(torch.topk(scores, self.k))
        scores, ids = (torch.cat(parts).cpu().numpy() for parts in zip(*best, strict=True))
        return ids, scores

    def _scores_of(
        self, users: np.ndarray, drawn: tuple[np.ndarray, np.ndarray] | None, pairs: int
    ) -> Tensor:
        """Score all items, `[users, I]`, `pairs` of users and items at a time."""
        rows = torch_device.tensor(users).long()
        history = mask = None
        if self.history_length:
            if drawn is None:
                items, mask = histories(self.rows, rows, None, self.history_length)
            else:
                items, mask = map(torch_device.tensor, drawn)
                items = items.long()
            history = self.model.item[items]
        parts = self.model.item.split(max(pairs // len(users), 1))
        user = self.model.user[rows]
        scores = torch.cat([self.scores(user, part, history, mask) for part in parts], 1)
        seen = [self.interactions.of(user) for user in users.tolist()]
        place = np.repeat(np.arange(len(users)), [len(items) for items in seen])
        own = torch_device.tensor(place), torch_device.tensor(np.concatenate(seen)).long()
        scores[own] = -torch.inf
        return scores

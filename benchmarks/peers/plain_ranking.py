"""Rank the full catalogue in PyTorch, by relations of a chunk of users with a chunk of items."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import forms, torch_device
from benchmarks.peers.plain_pytorch import PlainModel, Setting
from benchmarks.peers.torch_sampling import Rows, histories


class Drawn(NamedTuple):
    """Histories of users: items and mask `[u, P]`."""

    items: np.ndarray
    mask: np.ndarray


class PlainRanker:
    """Top-k of the full catalogue.

    Chunks have one shape: the last users are filled up, and the items by rows of zeros.

    Args:
      budget: bytes that the relation tensor of a chunk may take.
      form: one of `forms`.
    """

    def __init__(self, setting: Setting, k: int, budget: int, form: str) -> None:
        torch_device.use(setting.platform)
        self._model = PlainModel(setting.shape.model, setting.params, setting.margin)
        self._rows, self._k, self._form = Rows(setting.interactions), k, form
        self._length, self._budget = setting.history_length, budget
        self._scores = self._model.scores
        if form != forms.EAGER:
            self._scores = torch.compile(self._model.scores, **forms.compile_options(form))

    @torch.inference_mode()
    def top_k(self, users: np.ndarray, drawn: Drawn | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return item ids and scores, both `[users, k]`, best first, without the users' own items.

        Args:
          drawn: histories to use; None draws them.
        """
        num_items = self._rows.num_items
        # CML has no relation: a score is all that a pair needs.
        floats = 1 if self._model.name == "cml" else self._model.item.shape[1]
        pairs = max(self._budget // (4 * floats * max(self._length, 1)), 1)
        step = min(max(pairs // num_items, 1), len(users))
        parts = self._parts_of_items(-(-num_items // max(pairs // step, 1)))
        rows = torch_device.tensor(np.resize(users, -(-len(users) // step) * step)).long()
        given = None
        if drawn is not None:
            items, mask = (
                torch_device.tensor(np.resize(x, (len(rows), x.shape[1]))) for x in drawn
            )
            given = items.long().split(step), mask.split(step)
        best = []
        for number, chunk in enumerate(rows.split(step)):
            history = given and (given[0][number], given[1][number])
            scores = self._scores_of(chunk, parts, history)
            best.append(torch.topk(scores, self._k))
        scores, ids = (torch.cat(x)[: len(users)].cpu().numpy() for x in zip(*best, strict=True))
        return ids, scores

    def _parts_of_items(self, number: int) -> tuple[Tensor, ...]:
        """Divide the rows of items into so many equal parts, filled up with zeros."""
        item = self._model.item
        size = -(-len(item) // number)
        filled = torch.nn.functional.pad(item, (0, 0, 0, size * number - len(item)))
        return filled.split(size)

    def _scores_of(
        self, users: Tensor, parts: tuple[Tensor, ...], drawn: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Score all items, `[u, I]`; -inf for those that a user has seen."""
        history = mask = None
        if self._length:
            items, mask = drawn or histories(self._rows, users, None, self._length)
            history = self._model.item[items]
        user, size = self._model.user[users], len(parts[0])
        # A column more, for what is seen by nobody.
        num_items = self._rows.num_items
        scores = user.new_empty(len(users), max(size * len(parts), num_items + 1))
        for number, part in enumerate(parts):
            if self._form == forms.GRAPHS:
                torch.compiler.cudagraph_mark_step_begin()
            columns = slice(number * size, (number + 1) * size)
            scores[:, columns] = self._scores(user, part, history, mask)
        start, stop = self._rows.offsets[users], self._rows.offsets[users + 1]
        place = start[:, None] + torch.arange(self._rows.longest, device=users.device)
        is_own = place < stop[:, None]
        own = torch.where(is_own, self._rows.items[torch.where(is_own, place, 0)], num_items)
        return scores.scatter_(1, own, -torch.inf)[:, :num_items]

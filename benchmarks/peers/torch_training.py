"""Take training steps in PyTorch: eager, compiled, or as CUDA graphs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers import forms, torch_device


class Task(nn.Module):
    """What is trained: parameters, tables that stay in place, and functions of them.

    Attributes:
      compiles_draw: whether `draw` is compiled where the rest is.
    """

    compiles_draw = True

    def draw(self, chosen: Tensor) -> Any:
        """Complete the rows `chosen [B]` to a batch."""
        raise NotImplementedError

    def forward(self, batch: Any) -> Tensor:
        """Compute the loss of a batch."""
        raise NotImplementedError

    def project(self) -> None:
        """Project the tables, in place."""
        raise NotImplementedError

    def given(self, arrays: Any) -> Any:
        """Make a batch of arrays that were drawn elsewhere."""
        raise NotImplementedError


def project(rows: Tensor, radius: float = 1.0) -> None:
    """Project each row on the ball, in place."""
    rows.mul_(radius / rows.norm(dim=1, keepdim=True).clamp_min(radius))


def random_batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `rows [N]` in random order, `[size]` at a time, for ever, without short batches."""
    while True:
        for batch in rows[torch.randperm(len(rows), device=rows.device)].split(size):
            if len(batch) == size:
                yield batch


class Trainer:
    """Training steps, sampling included; the short last batch of an epoch is left out.

    Args:
      rows: what an epoch goes through.
      form: one of `forms`.
    """

    def __init__(
        self, task: Task, rows: Tensor, batch_size: int, learning_rate: float, form: str
    ) -> None:
        self._task, self._form = task, form
        # The fused kernel is the fastest of PyTorch's Adams on CPUs too.
        self._optimizer = torch.optim.Adam(
            task.parameters(), lr=learning_rate, fused=True, capturable=torch_device.is_gpu()
        )
        self._draw, self._loss, self._project = task.draw, task, task.project
        if form != forms.EAGER:
            options = forms.compile_options(form)
            self._loss, self._project = (torch.compile(x, **options) for x in (task, task.project))
            if task.compiles_draw:
                self._draw = torch.compile(task.draw, **options)
        self._batches = random_batches(rows, batch_size)
        self._graph: torch.cuda.CUDAGraph | None = None

    def loss_of(self, arrays: Any) -> float:
        """Compute the loss of a batch that was drawn elsewhere."""
        return self._loss(self._task.given(arrays)).item()

    def run(self, steps: int) -> None:
        """Take steps, and wait for the last."""
        if self._form == forms.CAPTURED and self._graph is None:
            self._capture()
        for _ in range(steps):
            chosen = next(self._batches)
            if self._graph is None:
                self._step(chosen)
            else:
                self._chosen.copy_(chosen)
                self._graph.replay()
        torch_device.wait()

    def _step(self, chosen: Tensor) -> None:
        """Draw, compute the gradient, update by Adam, project the tables."""
        if self._form == forms.GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            batch = self._draw(chosen)
        self._loss(batch).backward()
        self._optimizer.step()
        with torch.no_grad():
            self._project()

    def _capture(self) -> None:
        """Record a step; before it, some are taken on another stream, as PyTorch asks for."""
        self._chosen = next(self._batches).clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step(self._chosen)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(self._chosen)
        self._graph = graph

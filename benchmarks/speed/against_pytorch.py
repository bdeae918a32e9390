"""Build the programs of PyTorch that ours are compared with, and check that they agree with ours.

Each is given by what builds it, in another process; see `peers/contest.py`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.peers import contest
from benchmarks.shapes import Shape
from benchmarks.speed.trainers import LEARNING_RATE, MARGIN
from hlr_jax.data import Interactions

NAME = "PyTorch, {}"
# Steps in which a trainer compiles, and records what it replays later.
_FIRST_STEPS = 4

Builds = dict[str, Callable[[], Any]]
Arrays = Mapping[str, np.ndarray]


def _setting(shape: Shape, data: Interactions, params: Arrays) -> Any:
    # Only now: `--help` need not wait for PyTorch.
    from benchmarks.peers.plain_pytorch import Setting

    return Setting(jax.default_backend(), shape, data, params, MARGIN, LEARNING_RATE)


def trainers(shape: Shape, data: Interactions, params: Arrays, forms: Sequence[str]) -> Builds:
    """List what builds trainers of triplets, by name, that start from these parameters."""
    from benchmarks.peers.plain_pytorch import plain_trainer

    setting = _setting(shape, data, params)
    return {NAME.format(form): functools.partial(plain_trainer, setting, form) for form in forms}


def rankers(
    shape: Shape,
    data: Interactions,
    params: Arrays,
    k: int,
    forms_and_chunks: Sequence[tuple[str, int]],
) -> Builds:
    """List what builds rankers, by name, given forms and MiB of relations of a chunk."""
    from benchmarks.peers.plain_ranking import PlainRanker

    setting = _setting(shape, data, params)
    return {
        NAME.format(f"{form}, {chunk} MiB"): functools.partial(
            PlainRanker, setting, k, chunk * 2**20, form
        )
        for form, chunk in forms_and_chunks
    }


def check_loss(batch: Any, loss: float, peer: contest.Contestant) -> None:
    """Take the first steps of a trainer, after its loss of a batch of ours.

    Raises:
      RuntimeError: it differs by more than rounding explains.
    """
    peers_loss = peer.call("loss_of", batch)
    # TF32, which both may use on a GPU, keeps 10 bits.
    tolerance = 1e-4 if jax.default_backend() == "cpu" else 1e-3
    if abs(loss - peers_loss) > tolerance * abs(loss):
        raise RuntimeError(f"loss {loss}, in PyTorch {peers_loss}")
    peer.call("run", _FIRST_STEPS)


def check_scores(
    users: np.ndarray, drawn: Any, expected: np.ndarray, peer: contest.Contestant
) -> None:
    """Let a ranker rank for users with these histories.

    Raises:
      RuntimeError: its top scores differ by more than rounding explains.
    """
    _, found = peer.call("top_k", users, drawn)
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-4):
        raise RuntimeError(f"scores differ by up to {np.abs(found - expected).max()}")

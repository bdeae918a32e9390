"""Run PyTorch on the device that JAX uses, so that both are measured on the same."""

import jax
import numpy as np
import torch
from torch import Tensor


def device() -> torch.device:
    """Return a GPU if JAX uses one, else the CPU."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def tensor(array: np.ndarray) -> Tensor:
    """Copy an array to the device."""
    return torch.tensor(array, device=device())


def allow_tf32() -> None:
    """On a GPU, let float32 products use TF32, as JAX's do by default."""
    if device().type == "cuda":
        torch.set_float32_matmul_precision("high")


def wait() -> None:
    """Wait for all work on the device."""
    if device().type == "cuda":
        torch.cuda.synchronize()

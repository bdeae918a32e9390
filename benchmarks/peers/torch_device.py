"""PyTorch on the device that JAX uses, so that both are measured on the same."""

import jax
import numpy as np
import torch
from torch import Tensor


def device() -> torch.device:
    """A GPU if JAX uses one, else the CPU."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def tensor(array: np.ndarray) -> Tensor:
    """The array on the device."""
    return torch.as_tensor(array, device=device())


def set_precision() -> None:
    """On a GPU, let float32 products use TF32, as JAX's do."""
    torch.set_float32_matmul_precision("high" if device().type == "cuda" else "highest")


def wait() -> None:
    """Return when all that was asked of the device is done."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def loss_tolerance() -> float:
    """By how much two losses of a batch may differ, as a share of them; TF32 keeps 10 bits."""
    return 1e-3 if device().type == "cuda" else 1e-4

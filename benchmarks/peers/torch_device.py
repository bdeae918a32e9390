"""PyTorch on the device that JAX uses, so that both are measured on the same."""

import jax
import numpy as np
import torch
from torch import Tensor


def follow_jax() -> None:
    """From now on tensors are made on JAX's device; on a GPU, products may use TF32 as JAX's do."""
    if jax.default_backend() == "gpu":
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")


def tensor(array: np.ndarray) -> Tensor:
    """The array on the device."""
    return torch.as_tensor(array, device=torch.get_default_device())


def wait() -> None:
    """Return when all that was asked of the device is done."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def loss_tolerance() -> float:
    """By how much two losses of a batch may differ, as a share of them; TF32 keeps 10 bits."""
    return 1e-3 if torch.get_default_device().type == "cuda" else 1e-4

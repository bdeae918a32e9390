"""Run PyTorch on the device that JAX uses, so that both are measured on the same."""

import numpy as np
import torch
from torch import Tensor

_device = torch.device("cpu")


def use(platform: str) -> None:
    """Use the platform that JAX calls by this name, `cpu` or `gpu`, from now on.

    Raises:
      RuntimeError: PyTorch has no GPU.
    """
    global _device
    if platform == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("JAX has a GPU, but this PyTorch sees none")
    _device = torch.device("cuda" if platform == "gpu" else "cpu")


def device() -> torch.device:
    """Return the device in use, at first the CPU."""
    return _device


def is_gpu() -> bool:
    """Whether a GPU is in use."""
    return _device.type == "cuda"


def tensor(array: np.ndarray) -> Tensor:
    """Copy an array to the device."""
    return torch.tensor(array, device=_device)


def allow_tf32() -> None:
    """On a GPU, let float32 products use TF32, as JAX's do by default."""
    if is_gpu():
        torch.set_float32_matmul_precision("high")


def wait() -> None:
    """Wait for all work on the device."""
    if is_gpu():
        torch.cuda.synchronize()

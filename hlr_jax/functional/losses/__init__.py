"""The losses, one file each: every module of this package is imported, and registers its own."""

import importlib
import pkgutil

from hlr_jax.functional.losses.loss import LOSSES, Loss, NegativeDistances
from hlr_jax.registry import register

__all__ = ["LOSSES", "Loss", "NegativeDistances", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

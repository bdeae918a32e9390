"""The geometries, one file each: every module here is imported, and registers its own."""

import importlib
import pkgutil

from hlr_jax.functional.geometry.geometry import GEOMETRIES, Geometry
from hlr_jax.registry import register

__all__ = ["GEOMETRIES", "Geometry", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

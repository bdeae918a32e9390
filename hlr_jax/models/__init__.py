"""The models, one file each: every module of this package is imported, and registers its model."""

import importlib
import pkgutil

from hlr_jax.models.relation import History, Relation, build, names, register

__all__ = ["History", "Relation", "build", "names", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

"""The models, one file each: every module of this package is imported, and registers its model."""

import importlib
import pkgutil

from hlr_jax.models.registry import RELATIONS
from hlr_jax.models.relation import Relation
from hlr_jax.registry import register
from hlr_jax.types import History

__all__ = ["RELATIONS", "History", "Relation", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

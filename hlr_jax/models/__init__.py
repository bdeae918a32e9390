"""The models: one file each. Importing a file here registers what it defines."""

from hlr_jax.models.base import History, Relation, build, names, register
from hlr_jax.models.cml import CML
from hlr_jax.models.hlr import HLR
from hlr_jax.models.hlrpp import HLRPlusPlus
from hlr_jax.models.lrml import LRML

__all__ = [
    "CML",
    "HLR",
    "LRML",
    "HLRPlusPlus",
    "History",
    "Relation",
    "build",
    "names",
    "register",
]

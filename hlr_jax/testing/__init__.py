"""Contract tests of what researchers add: relations, losses, geometries and samplers.

from hlr_jax.testing import check_loss

def test_my_loss():
    check_loss(MyLoss)

Each check is a plain function that raises AssertionError, which names what does not hold. `pytest
--hlr-jax-check=my_module` runs them over everything that a module registers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hlr_jax.testing.contracts import Contract, contracts_of
    from hlr_jax.testing.geometries import check_geometry
    from hlr_jax.testing.losses import check_loss
    from hlr_jax.testing.relations import check_relation
    from hlr_jax.testing.samplers import check_sampler

__all__ = [
    "Contract",
    "check_geometry",
    "check_loss",
    "check_relation",
    "check_sampler",
    "contracts_of",
]

_HOMES = {
    "Contract": "contracts",
    "check_geometry": "geometries",
    "check_loss": "losses",
    "check_relation": "relations",
    "check_sampler": "samplers",
    "contracts_of": "contracts",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use: every run of pytest imports this package, by its plugin, and should
    # not wait for JAX.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The contract tests of everything that a module registers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import hlr_jax.models  # noqa: F401 - registers the library's own
from hlr_jax.functional.geometry import GEOMETRIES
from hlr_jax.functional.losses import LOSSES
from hlr_jax.models.registry import RELATIONS
from hlr_jax.registry import Registry
from hlr_jax.sampling.samplers import SAMPLERS
from hlr_jax.testing.geometries import check_geometry
from hlr_jax.testing.losses import check_loss
from hlr_jax.testing.relations import check_relation
from hlr_jax.testing.samplers import check_sampler

_CHECKS: tuple[tuple[Registry[Any], Callable[[Any], None]], ...] = (
    (GEOMETRIES, check_geometry),
    (LOSSES, check_loss),
    (RELATIONS, check_relation),
    (SAMPLERS, check_sampler),
)


class Contract(NamedTuple):
    """A check of a registered class.

    Attributes:
      name: of the check and the class, as `check_loss[hinge]`.
      check: raises AssertionError where the contract is broken.
      cls: the class.
    """

    name: str
    check: Callable[[Any], None]
    cls: type

    def run(self) -> None:
        """Check the class with its default options."""
        self.check(self.cls)


def contracts_of(module: str) -> list[Contract]:
    """List the checks of all classes that a module, or a module within it, has registered.

    Args:
      module: name of a module that is imported, as `my_package`.
    """
    found = []
    for registry, check in _CHECKS:
        for name in registry.names():
            cls = registry.get(name)
            if cls.__module__ == module or cls.__module__.startswith(module + "."):
                found.append(Contract(f"{check.__name__}[{name}]", check, cls))
    return found

"""A pytest plugin: `--hlr-jax-check=my_module` tests what a module registers by its contracts.

Every run of pytest imports this module where the library is installed: it imports JAX, and what it
checks, only when it is asked to check something.
"""

from collections.abc import Iterable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("hlr_jax").addoption(
        "--hlr-jax-check",
        action="append",
        default=[],
        metavar="MODULE",
        help="test the relations, losses, geometries and samplers that a module registers with "
        "hlr_jax (may be given several times); give --pyargs hlr_jax.testing to run nothing else",
    )


def pytest_collection(session: pytest.Session) -> None:
    """Import the modules, before anything is collected."""
    modules = session.config.getoption("--hlr-jax-check")
    if not modules:
        return
    from hlr_jax.config import plugins
    from hlr_jax.errors import InputError

    try:
        plugins.load(modules, "--hlr-jax-check={}")
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Append a test for each class that the modules registered; -k and -m choose among them."""
    for module in session.config.getoption("--hlr-jax-check"):
        items += _tests_of(session, module)


def _tests_of(session: pytest.Session, module: str) -> Iterable[pytest.Item]:
    from hlr_jax.testing.contracts import contracts_of

    contracts = contracts_of(module)
    if not contracts:
        raise pytest.UsageError(f"--hlr-jax-check={module}: registers nothing with hlr_jax")
    return [ContractItem.from_parent(session, name=x.name, contract=x) for x in contracts]


class ContractItem(pytest.Item):
    """A contract as a test."""

    def __init__(self, *, contract: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = contract

    def runtest(self) -> None:
        """Check the class."""
        self.contract.run()

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Say what does not hold; where the code itself fails, show where."""
        if excinfo.errisinstance(AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where it stands in the report."""
        return self.contract.cls.__module__, None, self.name

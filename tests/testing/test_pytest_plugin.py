"""The pytest plugin: what it tests, what it says, and what it imports."""

import configparser
import pathlib
import subprocess
import sys

import pytest

# All that runs within these tests, imported before: what they import is forgotten afterwards.
import hlr_jax.testing.contracts  # noqa: F401
from hlr_jax.config import build, plugins
from hlr_jax.testing import pytest_plugin

pytest_plugins = "pytester"

MODULE = """
import jax.numpy as jnp

from hlr_jax import register
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.losses.hinge import Hinge


@register("taxicab")
class Taxicab(Geometry):
    def distance(self, x, y):
        return jnp.sum(jnp.abs(x - y), axis=-1)


@register("negative")
class Negative(Hinge):
    def __call__(self, positive, negatives):
        return jnp.sum(super().__call__(positive, negatives))


@register("faulty")
class Faulty(Hinge):
    def __call__(self, positive, negatives):
        raise ZeroDivisionError("of the loss")
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a module that registers components; registries as before afterwards."""
    for section in build.NAME_FIELDS:
        registry = build.registry(section)
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(plugins, "_loaded", set())
    pytester.makepyfile(my_components=MODULE, nothing="x = 1")
    pytester.makeini("[pytest]")
    pytester.syspathinsert()
    return pytester


def run(folder: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """In this process, with the plugin whether the package is installed with it or not."""
    arguments = ("-p", "no:hlr_jax", "-p", "no:cacheprovider", *arguments)
    return folder.runpytest_inprocess(*arguments, plugins=[pytest_plugin])


def test_what_a_module_registers_is_tested(folder: pytest.Pytester) -> None:
    folder.makepyfile(test_own="def test_own(): pass")
    result = run(folder, "--hlr-jax-check=my_components", "-v")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*check_geometry[[]taxicab[]]* PASSED*",
            "my_components.Negative(margin=0.5): the loss has shape (), not (6,)",
        ]
    )
    # Where the code itself fails, it is shown.
    result.stdout.fnmatch_lines(["*ZeroDivisionError: of the loss*"])
    chosen = run(folder, "--hlr-jax-check=my_components", "-k", "taxicab", "-q")
    chosen.assert_outcomes(passed=1, deselected=3)


def test_without_the_option_nothing_is_added(folder: pytest.Pytester) -> None:
    folder.makepyfile(test_own="def test_own(): pass")
    run(folder).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        ("not_there", "ERROR: --hlr-jax-check=not_there: there is no module 'not_there'; install*"),
        ("nothing", "ERROR: --hlr-jax-check=nothing: registers nothing with hlr_jax*"),
    ],
)
def test_a_module_that_cannot_be_tested_is_named(
    folder: pytest.Pytester, module: str, fault: str
) -> None:
    result = run(folder, f"--hlr-jax-check={module}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([fault])


def test_the_plugin_is_declared_and_imports_nothing_heavy() -> None:
    """Every run of pytest imports it, where the library is installed."""
    setup = configparser.ConfigParser()
    setup.read(pathlib.Path(__file__).parents[2] / "setup.cfg")
    declared = setup["options.entry_points"]["pytest11"].strip()
    assert declared == f"hlr_jax = {pytest_plugin.__name__}"
    code = (
        f"import sys; import {pytest_plugin.__name__}; "
        "print([name for name in ('jax', 'numpy', 'flax', 'polars') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_library_does_without_pytest() -> None:
    package = pathlib.Path(pytest_plugin.__file__).parents[1]
    users = [path for path in package.rglob("*.py") if "import pytest" in path.read_text()]
    assert users == [pathlib.Path(pytest_plugin.__file__)]

"""The names that the library shows: looked up on first use, and listed before."""

import subprocess
import sys

import pytest

import hlr_jax
import hlr_jax.testing


@pytest.mark.parametrize("package", [hlr_jax, hlr_jax.testing], ids=lambda value: value.__name__)
def test_every_name_is_listed_and_found(package):
    assert set(package.__all__) <= set(dir(package))
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_names_are_listed_without_importing_what_they_name():
    code = (
        "import sys, hlr_jax, hlr_jax.testing; "
        "assert 'SharedNegatives' in dir(hlr_jax) and 'check_loss' in dir(hlr_jax.testing); "
        "print('jax' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

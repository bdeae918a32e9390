import pytest
from baseline_cases import small_dataset

from hlr_jax.data.dataset import Dataset


@pytest.fixture(scope="package")
def dataset() -> Dataset:
    return small_dataset()

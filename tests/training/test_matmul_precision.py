"""`config.training.matmul_precision`: which precision a step's products are asked for."""

import re

import jax
import pytest
from support.small_runs import Run, config_of

from hlr_jax.config import TrainingConfig
from hlr_jax.errors import InputError
from hlr_jax.parallel.layout import ALONE
from hlr_jax.training import epoch


def products_of(precision: str) -> set[str]:
    """How the products of HLR's step are asked for, where they are not always exact."""
    run = Run.of(config_of("hlr", matmul_precision=precision))

    def steps(state, rows, recipe):
        own = rows._replace(order=rows.order[0])
        return epoch._steps(state, own, (0, 1), recipe, ALONE)

    with jax.numpy_dtype_promotion("standard"):
        traced = jax.jit(steps).trace(run.state(), run.rows(), run.recipe)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = re.findall(r"stablehlo\.dot_general.*", text)
    assert len(products) > 4
    return {
        "bf16" if "bf16" in product else "highest" if "HIGHEST" in product else "default"
        for product in products
    }


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("default", {"default"}), ("float32", {"highest"}), ("bfloat16", {"bf16"})],
)
def test_products_of_a_step_are_asked_for_in_that_precision(precision, expected):
    assert products_of(precision) == expected


def test_default_is_what_jax_is_set_to():
    with jax.default_matmul_precision("float32"):
        assert products_of("default") == {"highest"}


def test_other_names_are_refused():
    with pytest.raises(InputError, match=r"config\.training\.matmul_precision='tf32': use one of"):
        TrainingConfig(matmul_precision="tf32")

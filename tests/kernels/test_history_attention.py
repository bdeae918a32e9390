"""Slot weights with shared histories, by one product, against their definition."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hlr_jax import functional, kernels


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# The batch axes, targets that share a history, and its places: none of the latter too.
SHAPES = [((), 1, 1), ((1,), 3, 5), ((3,), 1, 4), ((2, 3), 2, 3), ((3,), 2, 0)]


@pytest.mark.parametrize(("batch", "targets", "places"), SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(
    batch: tuple[int, ...], targets: int, places: int
) -> None:
    x, history = normal(0, *batch, targets, 4), normal(1, *batch, places, 4)
    key, weight = normal(2, 4, 5), normal(3, *batch, targets, places, 5)

    def value_and_gradient(function: Callable[..., jax.Array], *arguments: jax.Array) -> object:
        def total(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
            slots = function(*arguments)
            return (slots * weight).sum(), slots

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arguments)

    @jax.jit
    def both(*arguments: jax.Array) -> tuple[object, object]:
        return (
            value_and_gradient(kernels.history_attention, *arguments),
            value_and_gradient(functional.history_attention, *arguments),
        )

    with jax.enable_x64(True):
        own, definition = both(*map(jnp.asarray, (x, history, key)))
        for found, expected in zip(*map(jax.tree.leaves, (own, definition)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    slots = kernels.history_attention(*(jnp.asarray(a, jnp.float32) for a in (x, history, key)))
    assert slots.shape == weight.shape
    assert slots.dtype == jnp.float32


def test_gradients_are_those_of_finite_differences() -> None:
    with jax.enable_x64(True):
        shapes = [(2, 2, 4), (2, 3, 4), (4, 5)]
        arguments = tuple(jnp.asarray(normal(n, *shape)) for n, shape in enumerate(shapes))
        check_grads(jax.jit(kernels.history_attention), arguments, 1, "rev")


def test_large_logits_are_finite() -> None:
    targets, history = jnp.ones((2, 1, 4)), jnp.ones((2, 3, 4))
    signs = jnp.asarray(np.sign(normal(6, 4, 5)), jnp.float32)
    key = (2500 * signs).at[:, 0].set(2500).at[:, 1].set(-2500)

    def first_slot(*arguments: jax.Array) -> jax.Array:
        return kernels.history_attention(*arguments)[..., 0].sum()

    of_all = jax.jit(jax.value_and_grad(first_slot, argnums=(0, 1, 2)))
    value, gradients = of_all(targets, history, key)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in gradients)

"""Forms of a memory's slots, and how alike they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads

from hlr_jax.functional import centred_slots, orthogonal_slots, scaled_slots, slot_similarity

FORMS = {"centred": centred_slots, "orthogonal": orthogonal_slots}


def random_slots(slots: int = 4, dim: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.6, (slots, dim))


@pytest.mark.parametrize("slots", [1, 4, 6])
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_the_oracle_s(form: str, slots: int) -> None:
    memory = random_slots(slots)
    with jax.enable_x64(True):
        found = FORMS[form](jnp.asarray(memory))
    np.testing.assert_allclose(found, oracles.formed_slots(memory, form), rtol=1e-9, atol=1e-12)


def test_centred_slots_sum_to_zero_and_orthogonal_ones_are_orthonormal() -> None:
    memory = jnp.asarray(random_slots(), jnp.float32)
    np.testing.assert_allclose(jnp.sum(centred_slots(memory), axis=0), 0, atol=1e-6)
    found = orthogonal_slots(memory)
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-6)
    # Whatever sign a decomposition takes, each leans towards the slot that it is made from.
    assert (jnp.sum(found * memory, axis=1) > 0).all()


def test_scaled_slots_have_the_norm_and_a_slot_of_zero_stays() -> None:
    memory = jnp.asarray(random_slots(), jnp.float32).at[2].set(0)
    found, gradient = jax.value_and_grad(lambda x: jnp.sum(scaled_slots(x, 0.3)))(memory)
    assert np.isfinite(found)
    assert np.isfinite(gradient).all()
    norms = np.linalg.norm(scaled_slots(memory, 0.3), axis=1)
    np.testing.assert_allclose(norms, [0.3, 0.3, 0, 0.3], rtol=1e-5)


def test_similarity_is_the_oracle_s() -> None:
    for memory in (random_slots(), random_slots(2), 5 * random_slots(seed=1)):
        found = slot_similarity(jnp.asarray(memory, jnp.float32))
        np.testing.assert_allclose(found, oracles.slot_similarity(memory), rtol=1e-5)


def test_similarity_by_hand() -> None:
    same = jnp.ones((3, 2)) * jnp.array([[1.0], [2.0], [-3.0]])
    np.testing.assert_allclose(slot_similarity(same), 1, rtol=1e-5)
    np.testing.assert_allclose(slot_similarity(2 * jnp.eye(3)), 0, atol=1e-6)
    # Cosines of 1, 0 and 0.
    np.testing.assert_allclose(slot_similarity(jnp.eye(2)[jnp.array([0, 0, 1])]), 1 / 3, rtol=1e-5)
    np.testing.assert_array_equal(slot_similarity(jnp.ones((1, 3))), 0)


@pytest.mark.parametrize(
    "function", [centred_slots, orthogonal_slots, lambda x: scaled_slots(x, 0.3), slot_similarity]
)
def test_gradients_go_through(function: Any) -> None:
    with jax.enable_x64(True):
        check_grads(jax.jit(function), (jnp.asarray(random_slots()),), 1, ("rev",))

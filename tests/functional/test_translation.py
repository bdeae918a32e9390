"""Translated distances, against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads

from hlr_jax.functional import squared_distance, translate, translated_distance
from hlr_jax.functional.geometry.ball import Ball

SHAPES = [
    pytest.param((6,), (6,), (6,), id="no batch axis"),
    pytest.param((3, 6), (3, 6), (3, 6), id="one batch axis"),
    pytest.param((3, 1, 6), (3, 4, 6), (3, 4, 6), id="a user and several items"),
    pytest.param((3, 1, 6), (3, 1, 6), (3, 4, 6), id="a relation shared by the items"),
    pytest.param((1, 6), (5, 6), (5, 6), id="a tile of items"),
]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("user_shape", "relation_shape", "item_shape"), SHAPES)
def test_translated_distance_matches_the_oracle(
    user_shape: tuple[int, ...], relation_shape: tuple[int, ...], item_shape: tuple[int, ...]
) -> None:
    shapes = (user_shape, relation_shape, item_shape)
    arrays = [normal(n, *shape) for n, shape in enumerate(shapes)]
    shape = np.broadcast_shapes(*shapes)
    all_u, all_r, all_i = (np.broadcast_to(x, shape) for x in arrays)
    expected = np.empty(shape[:-1])
    for index in np.ndindex(shape[:-1]):
        expected[index] = oracles.squared_distance(all_u[index] + all_r[index], all_i[index])
    u, r, i = (jnp.asarray(x, jnp.float32) for x in arrays)
    actual = translated_distance(Ball(), u, r, i)
    assert actual.shape == shape[:-1]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(translate(u, r), arrays[0] + arrays[1], rtol=1e-5, atol=1e-6)


def test_no_relation_leaves_the_distance_of_user_and_item() -> None:
    user, item = (jnp.asarray(normal(n, 3, 6), jnp.float32) for n in range(2))
    np.testing.assert_array_equal(
        translated_distance(Ball(), user, jnp.zeros_like(user), item), squared_distance(user, item)
    )


def test_a_relation_that_leads_to_the_item_leaves_no_distance() -> None:
    user, item = (jnp.asarray(normal(n, 3, 6), jnp.float32) for n in range(2))
    np.testing.assert_allclose(translated_distance(Ball(), user, item - user, item), 0, atol=1e-12)


def test_translation_gradients() -> None:
    with jax.enable_x64(True):
        user, relation, item = (jnp.asarray(normal(n, 3, k, 6)) for n, k in enumerate([1, 4, 4]))
        check_grads(jax.jit(translate), (user, relation), 1, ("fwd", "rev"))
        translated = jax.jit(functools.partial(translated_distance, Ball()))
        check_grads(translated, (user, relation, item), 1, ("fwd", "rev"))

"""Scores of tiles of items from slot weights alone, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hlr_jax.functional import (
    attention_weights,
    memory_attention,
    pairwise_squared_distances,
    squared_distance,
)
from hlr_jax.kernels import sizes, tiled_scores
from hlr_jax.kernels.sizes import Sizes

USERS, ITEMS, DIM, SLOTS, PLACES = 5, 7, 6, 4, 3


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_memory_attention_of_a_tile() -> None:
    """Of every row with every item; and its gradient."""
    x, items, key = normal(3, USERS, DIM), normal(4, ITEMS, DIM), normal(5, DIM, SLOTS)

    def tiled(x: jax.Array, items: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.moveaxis(tiled_scores.tile_memory_attention(x, items, key), 1, 2)

    expected = memory_attention(x[:, None], items[None], key)
    np.testing.assert_allclose(jax.jit(tiled)(x, items, key), expected, rtol=1e-5, atol=1e-7)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, jnp.float64) for a in (x[:3], items[:2], key)]
        check_grads(jax.jit(tiled), arguments, 1, ("fwd", "rev"))


def test_memory_attention_of_a_tile_with_large_logits_is_finite() -> None:
    x = items = jnp.ones((2, DIM))
    signs = jnp.asarray(np.sign(normal(6, DIM, SLOTS)), jnp.float32)
    key = (2500 * signs).at[:, 0].set(2500).at[:, 1].set(-2500)

    def first_slot(key: jax.Array) -> jax.Array:
        return tiled_scores.tile_memory_attention(x, items, key)[:, 0].sum()

    slots, gradient = jax.jit(jax.value_and_grad(first_slot))(key)
    np.testing.assert_allclose(slots, 4, rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_attention_over_groups_of_references(beta: float) -> None:
    """Logits, weights and pooled slots, item by item, some references masked."""
    slots, query = jnp.abs(normal(0, PLACES + 1, SLOTS, ITEMS)), normal(1, SLOTS)
    mask = jnp.asarray([True, False, True])
    logits = tiled_scores.tile_logits(slots, query)
    np.testing.assert_allclose(logits, jnp.einsum("pmt,m->pt", slots, query), rtol=1e-5)

    groups = [logits[:1], logits[1:]]
    found = tiled_scores.tile_attention_weights(groups, [jnp.ones(1, bool), mask], beta)
    assert [x.shape for x in found] == [(1, ITEMS), (PLACES, ITEMS)]
    every = jnp.concatenate([jnp.ones(1, bool), mask])
    for item in range(ITEMS):
        expected = attention_weights(logits[:, item], every, beta)
        np.testing.assert_allclose(jnp.concatenate(found)[:, item], expected, rtol=1e-5)
    pooled = tiled_scores.tile_pool(found[1], slots[1:])
    expected = jnp.einsum("pt,pmt->mt", found[1], slots[1:])
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


def test_scores_of_relations_by_their_coordinates() -> None:
    """`-||u + c @ memory - i||^2` for coordinates that differ by user and item."""
    users, items, memory = normal(0, USERS, DIM), normal(1, ITEMS, DIM), normal(2, SLOTS, DIM)
    coordinates = normal(3, USERS, SLOTS, ITEMS)
    found = tiled_scores.relation_scores(
        lambda of_user: 2 * of_user, (coordinates,), users, items, memory, SLOTS * ITEMS
    )
    relations = jnp.einsum("umt,md->utd", 2 * coordinates, memory)
    expected = -squared_distance(users[:, None] + relations, items[None])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    change = tiled_scores.change_of_distance(items, memory)
    for user in range(USERS):
        of_user = change(memory @ users[user], 2 * coordinates[user])
        before = pairwise_squared_distances(users, items)[user]
        np.testing.assert_allclose(before + of_user, -expected[user], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("floats", [1, 100, 2**20])
def test_blocks_and_tiles_give_what_all_at_once_gives(
    floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their sizes, which leave remainders."""
    monkeypatch.setattr(sizes, "scoring_sizes", lambda: Sizes(1000, 32_000, 32))
    rows, items = normal(0, 11, DIM), normal(1, ITEMS, DIM)
    found = tiled_scores.blockwise(lambda row, n: row * n, (rows, jnp.arange(11.0)), floats)
    np.testing.assert_array_equal(found, rows * jnp.arange(11.0)[:, None])
    for size in (1, 3, ITEMS, 64):
        found = tiled_scores.tilewise(lambda tile: rows @ tile.T, items, size)
        np.testing.assert_allclose(found, rows @ items.T, rtol=1e-5, atol=1e-6)


def test_sizes_fit() -> None:
    """Tiles are powers of two between 4 and the most; slices of a batch are equal."""
    _, table, most = sizes.scoring_sizes()
    assert sizes.table_tile(1, 1) == most
    assert sizes.table_tile(10**9, 20) == 4
    tile = sizes.table_tile(5000, 20)
    assert tile & (tile - 1) == 0
    assert 5000 * 20 * tile <= table
    assert sizes.batch_slice(10, 100, False) == 10
    assert sizes.batch_slice(1000, 10**9, False) == 1
    assert sizes.batch_slice(1000, 10**9, True) == 125
    assert sizes.user_slice(200, 0) == 100
    assert sizes.neighbor_slice(0) == 1
    assert sizes.neighbor_slice(10**6) == 256

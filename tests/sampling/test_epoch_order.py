"""The order of an epoch: every row once, in random order, whichever devices take it."""

import itertools
import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from support.interactions import assert_distributed
from support.small_runs import epoch_order as epoch_order_of

from hlr_jax.sampling import epoch_order

# --- order of an epoch ---------------------------------------------------------------------------


@pytest.mark.parametrize(("num_rows", "batch_size"), [(1, 1), (1, 5), (6, 3), (7, 3), (100, 7)])
def test_an_epoch_has_every_row_once_and_pads_the_last_batch(num_rows, batch_size):
    order = epoch_order_of(jax.random.key(0), num_rows, batch_size)
    assert order.shape == (math.ceil(num_rows / batch_size), batch_size)
    flat = order.ravel()
    np.testing.assert_array_equal(np.sort(flat[:num_rows]), np.arange(num_rows))
    np.testing.assert_array_equal(flat[num_rows:], -1)
    assert epoch_order.num_steps(num_rows, batch_size) == len(order)


def test_epochs_of_other_keys_have_another_order():
    first, again, other = (epoch_order_of(jax.random.key(seed), 100, 10) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    assert (first.ravel() != np.arange(100)).mean() > 0.9


def test_all_orders_of_an_epoch_are_equally_likely():
    orders = [
        tuple(epoch_order_of(jax.random.key(seed), 3, 2).ravel()[:3].tolist())
        for seed in range(1200)
    ]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert_distributed(np.array(counts), np.full(6, 1 / 6))


# --- epochs of parts ------------------------------------------------------------------------------

BOUNDS = np.array([0, 5, 5, 42, 43, 60])
SHUFFLED = jax.jit(epoch_order.shuffled)


def orders_of(seed: int, bounds: np.ndarray, batch_size: int, groups: list[slice]) -> np.ndarray:
    """Of all groups, their rows counted from the first of each."""
    key, firsts = jax.random.key(seed), [int(bounds[group.start]) for group in groups]
    places = epoch_order.places_by_part(bounds, batch_size, groups, range(len(groups)))
    # Of one shape, for which everything is compiled once; more parts are empty ones.
    flat = np.full(1 << max(9, places.size.bit_length()), -1, np.int32)
    flat[: places.size] = places.ravel()
    padded = np.pad(bounds, (0, max(0, 20 - len(bounds))), mode="edge").astype(np.int32)
    every = np.asarray(SHUFFLED(key, flat, padded))[: places.size].reshape(places.shape)
    return np.where(every < 0, -1, every - np.array(firsts)[:, None, None])


def batches_of(groups: list[slice], batch_size: int) -> list[list[int]]:
    """The rows of each step, and checks that every group has rows of its own alone."""
    orders = orders_of(3, BOUNDS, batch_size, groups)
    steps: list[list[int]] = [[] for _ in range(orders.shape[1])]
    for group, order in zip(groups, orders, strict=True):
        first, stop = BOUNDS[group.start], BOUNDS[group.stop]
        for step, rows in enumerate(order):
            found = rows[rows >= 0] + first
            assert ((found >= first) & (found < stop)).all()
            steps[step].extend(found.tolist())
    return [sorted(step) for step in steps]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 60, 100])
def test_every_row_comes_once_and_batches_do_not_depend_on_the_groups(batch_size):
    whole = batches_of([slice(0, 5)], batch_size)
    assert len(whole) == epoch_order.num_steps(60, batch_size)
    assert sorted(itertools.chain(*whole)) == list(range(60))
    for cuts in ([0, 2, 5], [0, 1, 2, 3, 4, 5], [0, 5, 5], [0, 2, 4, 5]):
        groups = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        assert batches_of(groups, batch_size) == whole


@pytest.mark.parametrize(("size", "batch_size"), [(10, 7), (100, 50), (6500, 1000)])
def test_many_equal_parts_make_equal_batches(size, batch_size):
    bounds = size * np.arange(65)
    order = orders_of(3, bounds, batch_size, [slice(0, 64)])[0]
    counts = (order >= 0).sum(axis=1)
    assert counts.min() >= counts.max() - 1
    assert counts.max() <= batch_size


def test_parts_are_spread_evenly_over_the_steps():
    for step in batches_of([slice(0, 5)], 16):  # four of them
        counts = np.histogram(step, BOUNDS)[0]
        expected = np.diff(BOUNDS) / 4
        assert (np.abs(counts - expected) < 1).all()


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any),
    st.integers(1, 50),
    st.data(),
)
def test_parts_of_any_sizes_in_any_groups(sizes, batch_size, data):
    bounds = np.cumsum([0, *sizes])
    cuts = data.draw(st.lists(st.integers(0, len(sizes)), max_size=4).map(sorted))
    orders = []
    for inner in (cuts, [], range(1, len(sizes))):
        groups = [slice(a, b) for a, b in itertools.pairwise([0, *inner, len(sizes)])]
        local = orders_of(5, bounds, batch_size, groups)
        assert local.shape[:2] == (len(groups), epoch_order.num_steps(sum(sizes), batch_size))
        # Full somewhere: batches are no larger than one of them needs.
        assert (local >= 0).all(axis=-1).any()
        firsts = np.array([bounds[group.start] for group in groups])[:, None, None]
        stops = np.array([bounds[group.stop] for group in groups])[:, None, None]
        order = np.where(local >= 0, local + firsts, -1)
        assert ((local < 0) | (order < stops)).all()
        steps = [sorted(step[step >= 0].tolist()) for step in np.moveaxis(order, 1, 0)]
        assert sorted(itertools.chain(*steps)) == list(range(sum(sizes)))
        for step in steps:
            counts = np.diff(np.searchsorted(step, bounds))
            assert (np.abs(counts - np.array(sizes) / len(steps)) < 1).all()
        orders.append(steps)
    assert orders[0] == orders[1] == orders[2]


def test_a_part_is_shuffled():
    (order,) = orders_of(0, np.array([0, 100, 300]), 300, [slice(0, 2)])
    for part in (slice(0, 100), slice(100, 300)):
        rows = order[0, part]
        assert sorted(rows.tolist()) == list(range(300))[part]
        assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.5


def test_some_groups_are_made_as_among_all_and_the_key_decides():
    groups = [slice(0, 2), slice(2, 3), slice(3, 5)]
    every = orders_of(3, BOUNDS, 7, groups)
    places = epoch_order.places_by_part(BOUNDS, 7, groups, range(3))
    some = epoch_order.places_by_part(BOUNDS, 7, groups, [2, 0])
    np.testing.assert_array_equal(some, places[[2, 0]])
    other = orders_of(4, BOUNDS, 7, groups)
    assert (other != every).any()


# --- parts of batches -----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_batches_are_divided_in_order_and_filled_up_with_padding(parts):
    order = np.arange(21, dtype=np.int32).reshape(3, 7)
    divided = epoch_order.split(order, parts)
    assert divided.shape == (parts, 3, -(-7 // parts))
    for step in range(3):
        whole = np.asarray(divided[:, step]).ravel()
        np.testing.assert_array_equal(whole[:7], order[step])
        assert (whole[7:] == -1).all()

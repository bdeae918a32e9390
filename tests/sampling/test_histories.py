"""Histories: which items may be drawn, and how often, against exact probabilities."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from support.interactions import SMALLEST_P_VALUE, assert_distributed, interactions

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.sampling.histories import (
    HistoryChoice,
    HistoryDraw,
    UniformChoice,
    WeightedChoice,
    history_choice,
    sample_history,
    user_histories,
)
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import HistoryIds


@functools.partial(jax.jit, static_argnames="length")
def draw(
    keys: jax.Array,
    rows: DeviceInteractions,
    choice: HistoryChoice,
    user: jax.Array,
    position: jax.Array,
    length: int,
) -> HistoryIds:
    """A history of the user for each key."""
    return jax.vmap(lambda k: sample_history(k, rows, choice, user, position, length))(keys)


def scalar(number: int) -> jax.Array:
    return jnp.asarray(number, jnp.int32)


def scalars(*numbers: int) -> list[jax.Array]:
    return [scalar(number) for number in numbers]


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
@pytest.mark.parametrize("length", [1, 3, 11])
def test_histories_are_other_items_of_the_user_without_repetition(kind, length):
    # User n has n items; every one of them is the target once, and once none is.
    items_of = [sorted((7 * n + 3 * np.arange(n)) % 40) for n in range(9)]
    train = interactions(items_of, 40)
    rows, choice = DeviceInteractions.of(train), history_choice(kind, train.popularity)
    cases = [(user, position) for user in range(9) for position in range(-1, user)]
    users, positions = (jnp.asarray(column, jnp.int32) for column in zip(*cases, strict=True))

    @jax.jit
    def draw_each(keys: jax.Array) -> HistoryIds:
        keys = jax.vmap(lambda key: jax.random.split(key, len(users)))(keys)
        flat, repeated = keys.reshape(-1), (jnp.tile(x, 40) for x in (users, positions))
        return jax.vmap(lambda k, u, p: sample_history(k, rows, choice, u, p, length))(
            flat, *repeated
        )

    drawn = draw_each(jax.random.split(jax.random.key(8), 40))
    items, mask = (np.asarray(x).reshape(40, len(cases), length) for x in drawn)
    assert (items[~mask] == 0).all()
    for case, (user, position) in enumerate(cases):
        others = [item for place, item in enumerate(items_of[user]) if place != position]
        for repetition in range(40):
            chosen = items[repetition, case][mask[repetition, case]].tolist()
            assert len(chosen) == len(set(chosen)) == min(length, len(others))
            assert set(chosen) <= set(others)


@pytest.mark.parametrize("length", [1, 3, 11])
def test_recent_histories_are_what_came_last_before_the_target(length):
    rng = np.random.default_rng(4)
    items_of = [sorted((7 * n + 3 * np.arange(n)) % 40) for n in range(9)]
    times_of = [rng.permutation(50)[:n].tolist() for n in range(9)]
    users = np.repeat(np.arange(9), np.arange(9))
    train = Interactions.from_pairs(
        *(users, np.concatenate(items_of).astype(int), 9, 40),
        np.concatenate(times_of).astype(np.int32),
    )
    choice = history_choice("recent", train.popularity)
    # As interactions are, and filled up, as those of a request or of one of several devices.
    for rows in (DeviceInteractions.of(train), DeviceInteractions.rounded(train)):
        for user in range(9):
            by_time = [item for _, item in sorted(zip(times_of[user], items_of[user], strict=True))]
            for position in range(-1, user):
                before = by_time
                if position >= 0:
                    before = by_time[: by_time.index(items_of[user][position])]
                drawn = draw(
                    jax.random.split(jax.random.key(1), 2),
                    rows,
                    choice,
                    *scalars(user, position),
                    length,
                )
                for items, mask in zip(*map(np.asarray, drawn), strict=True):
                    assert items[mask].tolist() == before[::-1][:length]
                    # The last is the first, and empty places follow.
                    assert mask.tolist() == sorted(mask.tolist(), reverse=True)
                    assert (items[~mask] == 0).all()


def test_an_order_that_is_not_known_cannot_be_read():
    train = interactions([[0, 1], [2]], 3)
    choice, rows = history_choice("recent", train.popularity), DeviceInteractions.of(train)
    with pytest.raises(InputError, match=r"config\.data\.keep_times=True"):
        draw(jax.random.split(jax.random.key(1), 1), rows, choice, *scalars(0, 1), 2)


def subset_counts(
    train: Interactions, position: int, length: int, kind: str, num_draws: int
) -> tuple[np.ndarray, list[tuple[int, ...]], list[int]]:
    """How often each subset of the last user's other items was drawn, and what those are."""
    user = train.num_users - 1
    rows, choice = DeviceInteractions.of(train), history_choice(kind, train.popularity)
    keys = jax.random.split(jax.random.key(9), num_draws)
    drawn = draw(keys, rows, choice, scalar(user), scalar(position), length)
    assert np.asarray(drawn.mask).all()
    own = train.of(user).tolist()
    others = [item for place, item in enumerate(own) if place != position]
    subsets = list(itertools.combinations(others, length))
    number = {subset: n for n, subset in enumerate(subsets)}
    numbers = [number[tuple(row)] for row in np.sort(np.asarray(drawn.items), axis=1).tolist()]
    return np.bincount(numbers, minlength=len(subsets)), subsets, others


@pytest.mark.parametrize(
    ("size", "position", "length"),
    [(5, -1, 2), (6, 0, 3), (6, 2, 3), (6, 5, 3), (7, 3, 5)],
)
def test_all_subsets_are_equally_likely(size, position, length):
    own = [3 * n + 1 for n in range(size)]
    train = interactions([[0, 1, 2], own], 40)
    counts, subsets, _ = subset_counts(train, position, length, "uniform", 30_000)
    assert_distributed(counts, np.full(len(subsets), 1 / len(subsets)))


def test_items_of_a_long_history_are_included_equally_often():
    size, position, length, num_draws = 60, 25, 12, 20_000
    rows = DeviceInteractions.of(interactions([[1, 2], list(range(size))], 80))
    keys = jax.random.split(jax.random.key(10), num_draws)
    drawn = draw(keys, rows, UniformChoice(), scalar(1), scalar(position), length)
    counts = np.bincount(np.asarray(drawn.items).ravel(), minlength=80)
    assert counts[position] == 0
    assert counts[size:].sum() == 0
    counts = np.delete(counts[:size], position)
    # Simple random sampling: Cov = N p (1 - p) n / (n - 1) (identity - 1/n).
    n, p = size - 1, length / (size - 1)
    statistic = (np.square(counts - num_draws * p) / (num_draws * p * (1 - p))).sum() * (n - 1) / n
    assert stats.chi2.sf(statistic, n - 1) > SMALLEST_P_VALUE
    assert stats.chi2.cdf(statistic, n - 1) > SMALLEST_P_VALUE


@pytest.mark.parametrize(("position", "length"), [(-1, 1), (-1, 3), (0, 2), (3, 3)])
def test_unpopular_histories_are_drawn_one_after_the_other_by_inverse_popularity(position, length):
    # Item n is of 2^n users and more: the last user has them all.
    popularity = [1, 2, 4, 8, 3, 1]
    others_of = [[n for n, times in enumerate(popularity) if user < times - 1] for user in range(7)]
    train = interactions([*others_of, list(range(6))], 10)
    np.testing.assert_array_equal(train.popularity[:6], popularity)
    counts, subsets, others = subset_counts(train, position, length, "unpopular", 60_000)
    weight = {item: 1 / popularity[item] for item in others}
    probabilities = np.zeros(len(subsets))
    for n, subset in enumerate(subsets):
        for order in itertools.permutations(subset):
            probability, left = 1.0, sum(weight.values())
            for item in order:
                probability *= weight[item] / left
                left -= weight[item]
            probabilities[n] += probability
    assert_distributed(counts, probabilities)


def test_an_item_nobody_trains_on_has_the_weight_of_one_with_one_user():
    train = interactions([[0, 2], [2]], 4)
    choice = history_choice("unpopular", train.popularity)
    assert isinstance(choice, WeightedChoice)
    np.testing.assert_allclose(np.exp(choice.log_weights), [1, 1, 0.5, 1], rtol=1e-6)
    assert isinstance(history_choice("uniform", train.popularity), UniformChoice)


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
def test_a_user_reads_the_same_of_a_long_history_wherever_its_row_is(kind):
    draw = HistoryDraw(history_choice(kind, np.arange(40)), jax.random.key(0), 3)
    rng = np.random.default_rng(0)
    lists = [np.sort(rng.permutation(40)[: 6 + user]) for user in range(20)]

    def drawn(order: list[int]) -> np.ndarray:
        items = np.concatenate([lists[user] for user in order])
        users = np.repeat(np.arange(len(order)), [len(lists[user]) for user in order])
        known = Interactions.from_pairs(users, items, len(order), 40)
        rows = jnp.arange(len(order), dtype=jnp.int32)
        return np.asarray(user_histories(draw, DeviceInteractions.rounded(known), rows).items)

    together = drawn([*range(20)])
    for user in range(20):
        np.testing.assert_array_equal(drawn([user])[0], together[user])
        assert set(together[user]) <= set(lists[user])
    np.testing.assert_array_equal(drawn([*range(20)][::-1])[::-1], together)
    # Places differ from user to user.
    places = [[*lists[user]].index(item) for user, item in enumerate(together[:, 0])]
    assert len(set(places)) > 5

"""Samplers: what may be drawn, how often (against exact probabilities), and by which key."""

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling import epoch_order as batching
from hlr_jax.sampling import sources

# A sampler of the right distribution stays above it, except once in this many seeds; a wrong
# one falls below by far with the number of draws made here. The seeds are fixed.
SMALLEST_P_VALUE = 1e-4


def interactions(items_of: list[list[int]], num_items: int) -> Interactions:
    users = [user for user, items in enumerate(items_of) for _ in items]
    items = [item for items in items_of for item in items]
    return Interactions.from_pairs(
        np.array(users, int), np.array(items, int), len(items_of), num_items
    )


def scalar(number: int) -> jax.Array:
    return jnp.asarray(number, jnp.int32)


def assert_distributed(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Chi-square test of `counts` against `probabilities`."""
    assert math.isclose(probabilities.sum(), 1)
    expected = probabilities * counts.sum()
    assert expected.min() > 50, "too few draws for a chi-square test"
    assert stats.chisquare(counts, expected).pvalue > SMALLEST_P_VALUE


# --- order of an epoch ---------------------------------------------------------------------------


@pytest.mark.parametrize(("num_rows", "batch_size"), [(1, 1), (1, 5), (6, 3), (7, 3), (100, 7)])
def test_an_epoch_has_every_row_once_and_pads_the_last_batch(num_rows, batch_size):
    order = np.asarray(batching.epoch_order(jax.random.key(0), num_rows, batch_size))
    assert order.shape == (math.ceil(num_rows / batch_size), batch_size)
    flat = order.ravel()
    np.testing.assert_array_equal(np.sort(flat[:num_rows]), np.arange(num_rows))
    np.testing.assert_array_equal(flat[num_rows:], -1)
    assert batching.num_steps(num_rows, batch_size) == len(order)


def test_epochs_of_other_keys_have_another_order():
    first, again, other = (
        np.asarray(batching.epoch_order(jax.random.key(seed), 100, 10)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    assert (first.ravel() != np.arange(100)).mean() > 0.9


def test_all_orders_of_an_epoch_are_equally_likely():
    orders = [
        tuple(batching.epoch_order(jax.random.key(seed), 3, 2).ravel()[:3].tolist())
        for seed in range(1200)
    ]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert_distributed(np.array(counts), np.full(6, 1 / 6))


# --- integers below a bound ----------------------------------------------------------------------

HALF, WORD = 2**16, 2**32


def test_uniform_below_is_the_upper_word_of_the_product(monkeypatch):
    """Against Python's integers; words and bounds at which a carry may be lost, and random ones."""
    edges = [0, 1, 2, HALF - 1, HALF, HALF + 1, WORD // 2 - 1, WORD // 2, WORD - HALF, WORD - 1]
    bounds = [
        1,
        2,
        3,
        7,
        HALF - 1,
        HALF,
        HALF + 1,
        3 * HALF + 5,
        10**6,
        2**30,
        2**31 - 2,
        2**31 - 1,
    ]
    rng = np.random.default_rng(0)
    words = np.concatenate(
        [
            np.array(list(itertools.product(edges, edges)), np.uint32),
            rng.integers(WORD, size=(3000, 2), dtype=np.uint32),
        ]
    )
    bounds = np.array([*bounds, *rng.integers(1, 2**31, size=40)], np.int32)
    words = np.broadcast_to(words[:, None], (len(words), len(bounds), 2))
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.asarray(words, dtype))
    drawn = sampling.uniform_below(jax.random.key(0), jnp.asarray(bounds)[None], words.shape[:-1])
    high, low = np.moveaxis(words, -1, 0).astype(object)
    expected = (high * WORD + low) * bounds.astype(object) >> 64
    assert drawn.dtype == jnp.int32
    np.testing.assert_array_equal(drawn, expected.astype(np.int64))


@pytest.mark.parametrize("bound", [2, 3, 7, 10])
def test_numbers_below_a_bound_are_uniform(bound):
    drawn = sampling.uniform_below(jax.random.key(bound), scalar(bound), (20_000,))
    counts = np.bincount(drawn, minlength=bound)
    assert len(counts) == bound
    assert_distributed(counts, np.full(bound, 1 / bound))


def test_bounds_may_differ_from_draw_to_draw():
    bounds = jnp.asarray([1, 5, 2**31 - 1], jnp.int32)
    draws = np.asarray(sampling.uniform_below(jax.random.key(4), bounds[None], (5_000, 3)))
    assert (draws >= 0).all()
    assert (draws < np.asarray(bounds)).all()
    assert set(draws[:, 1]) == set(range(5))
    # The mean of a uniform distribution, to five standard deviations.
    assert abs(draws[:, 2].mean() / (2**31 - 1) - 0.5) < 5 / np.sqrt(12 * 5_000)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 2])[0, 1]) < 0.1


# --- negatives -----------------------------------------------------------------------------------

SOME_ITEMS = 12


@jax.jit
def _many_negatives(rows: sources.Rows) -> jax.Array:
    """`[U, 600]`."""
    users = jnp.arange(len(rows.offsets) - 1)
    keys = jax.random.split(jax.random.key(3), len(users))
    return jax.vmap(lambda k, u: sampling.sample_negatives(k, rows, u, 600, SOME_ITEMS))(
        keys, users
    )


@settings(max_examples=60)
@given(
    st.lists(
        st.sets(st.integers(0, SOME_ITEMS - 1), max_size=SOME_ITEMS - 1), min_size=5, max_size=5
    )
)
def test_negatives_are_all_unseen_items_and_no_seen_one(seen_of):
    rows = sources.Rows.of(interactions([sorted(seen) for seen in seen_of], SOME_ITEMS))
    # Of one length, whatever the example, so that few programs are compiled.
    rows = rows.replace(items=jnp.pad(rows.items, (0, 5 * SOME_ITEMS - len(rows.items))))
    drawn = np.asarray(_many_negatives(rows))
    for user, seen in enumerate(seen_of):
        # That 600 draws miss one of 12 has a probability below 1e-21.
        assert set(drawn[user].tolist()) == set(range(SOME_ITEMS)) - seen


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([], id="none"),
        pytest.param([0], id="first"),
        pytest.param([49], id="last"),
        pytest.param([0, 49], id="first and last"),
        pytest.param(list(range(40)), id="a run at the start"),
        pytest.param(list(range(10, 50)), id="a run at the end"),
        pytest.param(list(range(0, 50, 2)), id="every second"),
        pytest.param([*range(3, 9), 20, 22, *range(30, 48)], id="mixed"),
        pytest.param([i for i in range(50) if i != 17], id="all but one"),
    ],
)
def test_negatives_are_uniform_over_the_unseen(seen):
    num_items, num_draws = 50, 100_000
    # Neighbours in the arrays must not be taken for this user's items.
    rows = sources.Rows.of(interactions([[0, 1, 2, 5], seen, [0, 48, 49]], num_items))
    drawn = np.asarray(
        sampling.sample_negatives(jax.random.key(5), rows, scalar(1), num_draws, num_items)
    )
    counts = np.bincount(drawn, minlength=num_items)
    assert len(counts) == num_items
    unseen = np.setdiff1d(np.arange(num_items), seen)
    assert counts[unseen].sum() == num_draws
    if len(unseen) > 1:
        assert_distributed(counts[unseen], np.full(len(unseen), 1 / len(unseen)))


def test_negatives_are_uniform_when_activity_and_popularity_are_skewed():
    generator = np.random.default_rng(1)
    num_users, num_items = 20, 300
    popular = 1 / np.arange(1, num_items + 1)
    items_of = [
        sorted(
            generator.choice(num_items, size=n, replace=False, p=popular / popular.sum()).tolist()
        )
        for n in np.geomspace(1, 250, num_users).astype(int)
    ]
    rows = sources.Rows.of(interactions(items_of, num_items))
    draw = jax.jit(lambda key, user: sampling.sample_negatives(key, rows, user, 60_000, num_items))
    for user, seen in enumerate(items_of):
        counts = np.bincount(draw(jax.random.key(user), scalar(user)), minlength=num_items)
        assert not counts[seen].any()
        unseen = np.setdiff1d(np.arange(num_items), seen)
        assert_distributed(counts[unseen], np.full(len(unseen), 1 / len(unseen)))


def test_the_negatives_of_a_triplet_are_independent():
    num_items, num_negatives = 9, 3
    rows = sources.Rows.of(interactions([[1, 4, 5]], num_items))
    keys = jax.random.split(jax.random.key(6), 60_000)
    drawn = np.asarray(
        jax.vmap(lambda k: sampling.sample_negatives(k, rows, scalar(0), num_negatives, num_items))(
            keys
        )
    )
    number = {item: n for n, item in enumerate([0, 2, 3, 6, 7, 8])}
    numbers = np.vectorize(number.get)(drawn)
    triples = np.ravel_multi_index(tuple(numbers.T), (6, 6, 6))
    # All 216 triples, those with repetitions too, come equally often.
    assert_distributed(np.bincount(triples, minlength=216), np.full(216, 1 / 216))


# --- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
@pytest.mark.parametrize("length", [1, 3, 11])
def test_histories_are_other_items_of_the_user_without_repetition(kind, length):
    # User n has n items; every one of them is the target once, and once none is.
    items_of = [sorted((7 * n + 3 * np.arange(n)) % 40) for n in range(9)]
    train = interactions(items_of, 40)
    rows, log_weights = (
        sources.Rows.of(train),
        sources.history_log_weights(kind, train.popularity),
    )
    cases = [(user, position) for user in range(9) for position in range(-1, user)]
    users, positions = (jnp.asarray(column, jnp.int32) for column in zip(*cases, strict=True))

    def draw(key: jax.Array) -> sampling.Histories:
        return jax.vmap(
            lambda k, u, p: sampling.sample_history(k, rows, u, p, length, log_weights)
        )(jax.random.split(key, len(users)), users, positions)

    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(8), 40))
    items, mask = np.asarray(drawn.items), np.asarray(drawn.mask)
    assert items.shape == mask.shape == (40, len(cases), length)
    assert (items[~mask] == 0).all()
    for case, (user, position) in enumerate(cases):
        others = [item for place, item in enumerate(items_of[user]) if place != position]
        for repetition in range(40):
            chosen = items[repetition, case][mask[repetition, case]].tolist()
            assert len(chosen) == len(set(chosen)) == min(length, len(others))
            assert set(chosen) <= set(others)


def _subset_counts(
    train: Interactions, position: int, length: int, kind: str, num_draws: int
) -> tuple[np.ndarray, list[tuple[int, ...]], list[int]]:
    """How often each subset of the last user's other items was drawn, and what those are."""
    user = train.num_users - 1
    rows, log_weights = (
        sources.Rows.of(train),
        sources.history_log_weights(kind, train.popularity),
    )
    keys = jax.random.split(jax.random.key(9), num_draws)
    drawn = jax.jit(
        jax.vmap(
            lambda k: sampling.sample_history(
                k, rows, scalar(user), scalar(position), length, log_weights
            )
        )
    )(keys)
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
    counts, subsets, _ = _subset_counts(train, position, length, "uniform", 30_000)
    assert_distributed(counts, np.full(len(subsets), 1 / len(subsets)))


def test_items_of_a_long_history_are_included_equally_often():
    size, position, length, num_draws = 60, 25, 12, 20_000
    rows = sources.Rows.of(interactions([[1, 2], list(range(size))], 80))
    drawn = jax.jit(
        jax.vmap(
            lambda k: sampling.sample_history(k, rows, scalar(1), scalar(position), length, None)
        )
    )(jax.random.split(jax.random.key(10), num_draws))
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
    counts, subsets, others = _subset_counts(train, position, length, "unpopular", 60_000)
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
    weights = sources.history_log_weights("unpopular", train.popularity)
    np.testing.assert_allclose(np.exp(weights), [1, 1, 0.5, 1], rtol=1e-6)
    assert sources.history_log_weights("uniform", train.popularity) is None


# --- batches -------------------------------------------------------------------------------------

ITEMS_OF = [[0, 3, 7, 9], [], [2], [1, 2, 3, 4, 5, 6, 8], [0, 9], [4, 5, 6]]
TRAIN = interactions(ITEMS_OF, 10)


def source_of_kind(kind: str, first: int = 0) -> sources.Source:
    log_weights = sources.history_log_weights(kind, TRAIN.popularity)
    return sources.training_source(TRAIN, log_weights, first)


draw_batch = jax.jit(sampling.draw_batch, static_argnames=("negatives", "history_length"))


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
def test_a_training_batch(kind):
    source = source_of_kind(kind)
    rows = jnp.asarray([*range(len(TRAIN)), -1, -1, -1], jnp.int32)
    batch = draw_batch(jax.random.key(1), source, rows, negatives=4, history_length=6)
    assert batch.items.shape == (len(TRAIN) + 3, 5)
    pairs = [(user, item) for user, items in enumerate(ITEMS_OF) for item in items]
    for row, (user, positive) in enumerate(pairs):
        assert int(batch.users[row]) == user
        assert int(batch.items[row, 0]) == positive
        assert not set(batch.items[row, 1:].tolist()) & set(ITEMS_OF[user])
        # All other items fit: none is missing, and the target is not there.
        chosen = batch.history.items[row][batch.history.mask[row]].tolist()
        assert sorted(chosen) == [item for item in ITEMS_OF[user] if item != positive]
    np.testing.assert_array_equal(batch.weight, [1.0] * len(pairs) + [0.0] * 3)


def test_a_model_without_history_gets_none():
    source = sources.training_source(TRAIN)
    rows = jnp.arange(4, dtype=jnp.int32)
    assert draw_batch(jax.random.key(1), source, rows, 2, 0).history is None


def test_a_batch_follows_from_its_key():
    source = sources.training_source(TRAIN)
    rows = jnp.arange(len(TRAIN), dtype=jnp.int32)
    first, again, other = (
        draw_batch(jax.random.key(seed), source, rows, 5, 2) for seed in (0, 0, 1)
    )
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.items[:, 1:] != other.items[:, 1:]).any()
    assert (first.history.items != other.history.items).any()


def test_rows_of_a_batch_are_drawn_independently():
    # Users alike in everything but their number: the rows must not repeat one another.
    source = sources.training_source(interactions([[0, 1, 2, 3, 4, 5]] * 500, 1000))
    rows = 6 * jnp.arange(500, dtype=jnp.int32)
    batch = draw_batch(jax.random.key(2), source, rows, 1, 2)
    assert len(np.unique(batch.items[:, 1])) > 300
    assert len(np.unique(np.asarray(batch.history.items), axis=0)) > 10


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
def test_an_interaction_draws_the_same_wherever_it_is(kind):
    """In any batch, at any place of it, and from a source of some users alone."""
    source = source_of_kind(kind)
    rows = jnp.asarray([*range(10), 3, -1], jnp.int32)
    whole = draw_batch(jax.random.key(1), source, rows, negatives=3, history_length=2)
    backwards = draw_batch(jax.random.key(1), source, rows[::-1], negatives=3, history_length=2)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[::-1], y), whole, backwards)

    users = slice(3, 5)  # whose interactions are those from 5 to 13
    log_weights = sources.history_log_weights(kind, TRAIN.popularity)
    some = sources.training_source(TRAIN.part(users), log_weights, int(TRAIN.offsets[3]))
    part = draw_batch(jax.random.key(1), some, jnp.arange(5, dtype=jnp.int32), 3, 2)
    np.testing.assert_array_equal(part.users + 3, whole.users[5:10])
    part = part._replace(users=part.users + 3)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[5:10]), part, whole)


# --- epochs of parts ------------------------------------------------------------------------------

BOUNDS = np.array([0, 5, 5, 42, 43, 60])


def batches_of(groups: list[slice], batch_size: int, **kwargs: Any) -> list[list[int]]:
    """The rows of each step, and checks that every group has rows of its own alone."""
    orders = batching.orders_by_part(jax.random.key(3), BOUNDS, batch_size, groups, **kwargs)
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
    assert len(whole) == batching.num_steps(60, batch_size)
    assert sorted(itertools.chain(*whole)) == list(range(60))
    for cuts in ([0, 2, 5], [0, 1, 2, 3, 4, 5], [0, 5, 5], [0, 2, 4, 5]):
        groups = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        assert batches_of(groups, batch_size) == whole


@pytest.mark.parametrize(("size", "batch_size"), [(10, 7), (100, 50), (6500, 1000)])
def test_many_equal_parts_make_equal_batches(size, batch_size):
    bounds = size * np.arange(65)
    key, groups = jax.random.key(3), [slice(0, 64)]
    order = batching.orders_by_part(key, bounds, batch_size, groups)[0]
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
        local = batching.orders_by_part(jax.random.key(5), bounds, batch_size, groups)
        assert local.shape[:2] == (len(groups), batching.num_steps(sum(sizes), batch_size))
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
    (order,) = batching.orders_by_part(
        jax.random.key(0), np.array([0, 100, 300]), 300, [slice(0, 2)]
    )
    for part in (slice(0, 100), slice(100, 300)):
        rows = order[0, part]
        assert sorted(rows.tolist()) == list(range(300))[part]
        assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.5


def test_some_groups_are_made_as_among_all_and_the_key_decides():
    groups = [slice(0, 2), slice(2, 3), slice(3, 5)]
    every = batching.orders_by_part(jax.random.key(3), BOUNDS, 7, groups)
    some = batching.orders_by_part(jax.random.key(3), BOUNDS, 7, groups, [2, 0])
    np.testing.assert_array_equal(some, every[[2, 0]])
    other = batching.orders_by_part(jax.random.key(4), BOUNDS, 7, groups)
    assert (other != every).any()


# --- validation ----------------------------------------------------------------------------------


def test_validation_has_histories_of_training_and_negatives_of_neither_split():
    valid_of = [[1], [5, 6], [0, 9], [], [2], [7]]
    source = sources.validation_source(TRAIN, interactions(valid_of, 10))
    pairs = [(user, item) for user, items in enumerate(valid_of) for item in items]
    rows = jnp.arange(len(pairs), dtype=jnp.int32)
    batch = draw_batch(jax.random.key(1), source, rows, negatives=400, history_length=8)
    for row, (user, positive) in enumerate(pairs):
        assert (int(batch.users[row]), int(batch.items[row, 0])) == (user, positive)
        touched = {*ITEMS_OF[user], *valid_of[user]}
        assert set(batch.items[row, 1:].tolist()) == set(range(10)) - touched
        chosen = batch.history.items[row][batch.history.mask[row]].tolist()
        assert sorted(chosen) == ITEMS_OF[user]


def test_a_pair_in_training_and_validation_is_refused():
    valid = interactions([[3], [], [2], [], [], []], 10)
    with pytest.raises(InputError, match="2 pairs are both in the training and the validation"):
        sources.validation_source(TRAIN, valid)

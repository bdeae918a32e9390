"""Negatives by popularity, and pools of negatives that a batch shares."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from test_sampling import ITEMS_OF, TRAIN, assert_distributed, interactions

from hlr_jax import models
from hlr_jax.config import Config, LossConfig, ModelConfig, SamplingConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import recommender
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling import sources
from hlr_jax.sampling.sources import Rows, Weights
from hlr_jax.training import step as training

draw_batch = jax.jit(
    sampling.draw_batch, static_argnames=("negatives", "history_length", "balance")
)
draw_batch_of_config = jax.jit(training.draw_batch, static_argnames=("model", "config"))


def weights_of(weights: Weights) -> np.ndarray:
    """`[I]` of each item."""
    return np.diff(np.append(np.asarray(weights.before, np.int64), int(weights.total)))


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [0.25, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("num_items", [1, 7, 20_000])
def test_weights_are_whole_shares_of_popularity_to_the_power_of_the_skew(num_items, skew):
    popularity = np.random.default_rng(0).integers(0, 3000, num_items)
    weights = weights_of(Weights.of(popularity, skew, interactions([[]], num_items)))
    # An item that nobody has is as likely as one with one user.
    share = np.maximum(popularity, 1) ** skew
    wanted = share / share.sum() * 2**30
    assert weights.sum() < 2**31
    assert weights.min() >= 1
    assert (np.abs(weights - wanted) <= 1).all()
    likely = wanted > 1000
    assert likely.any()
    found = weights / weights.sum() * 2**30
    np.testing.assert_allclose(found[likely], wanted[likely], rtol=1e-3)


# All users together have seen more than 2^32 of items whose weights add up to 2^30.
MANY_OF = [[i for i in range(12) if (i + user) % 12 > user % 4] for user in range(12)]
POPULARITY = np.array([1, 40, 3, 7, 19, 0, 2, 8, 31, 5, 11, 4])


def test_sums_of_weights_are_exact_beyond_32_bits():
    seen = interactions(MANY_OF, 12)
    weights = Weights.of(POPULARITY, 0.75, seen)
    exact = [int(weights_of(weights)[seen.of(user)].sum()) for user in range(12)]
    assert sum(exact) > 2**33
    before = np.asarray(weights.seen_before)
    assert before.dtype == np.uint32
    starts, stops = seen.offsets[:-1], seen.offsets[1:]
    np.testing.assert_array_equal(before[stops] - before[starts], exact)
    assert (before[stops] < before[starts]).sum() >= 2  # the sum began again within those


# --- negatives by popularity ---------------------------------------------------------------------


@pytest.mark.parametrize("skew", [0.5, 1.0])
def test_skewed_negatives_follow_the_weights_of_unseen_items(skew):
    """Users with nothing, one end or both, a gap, all but one; and those where sums wrap round."""
    some = [[], [0], [11], [0, 11], [4, 5, 6], [1, 8], [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]]
    seen = interactions([*some, *MANY_OF], 12)
    weights = Weights.of(POPULARITY, skew, seen)
    rows, users = Rows.of(seen), jnp.arange(seen.num_users)
    keys = jax.random.split(jax.random.key(3), seen.num_users)
    draw = jax.vmap(lambda k, u: sampling.sample_negatives(k, rows, u, 30_000, 12, weights))
    drawn = np.asarray(jax.jit(draw)(keys, users))
    for user in range(seen.num_users):
        counts = np.bincount(drawn[user], minlength=12)
        assert len(counts) == 12
        unseen = np.setdiff1d(np.arange(12), seen.of(user))
        assert counts[unseen].sum() == 30_000, "a seen item was drawn"
        if len(unseen) > 1:
            own = weights_of(weights)[unseen]
            assert_distributed(counts[unseen], own / own.sum())


@pytest.mark.parametrize("offset", [0, 2**32 - 30], ids=["from 0", "beyond 2^32"])
@pytest.mark.parametrize("user", range(7))
def test_every_place_leads_to_the_item_that_covers_it(user, offset, monkeypatch):
    """Each of the places there are, once: every unseen item comes exactly its weight's times."""
    seen = interactions(
        [[], [0], [11], [0, 11], [4, 5, 6], [1, 8], [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]], 12
    )
    own = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    seen_upto = offset + np.append(0, np.cumsum(own[seen.items]))
    weights = Weights(
        jnp.asarray(np.cumsum(own) - own, jnp.int32),
        jnp.asarray(own.sum(), jnp.int32),
        jnp.asarray(seen_upto % 2**32, jnp.uint32),
    )
    unseen = np.setdiff1d(np.arange(12), seen.of(user))
    num = int(own[unseen].sum())

    def every_place(key: jax.Array, bound: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        assert int(bound) == num
        return jnp.arange(num, dtype=jnp.int32)

    monkeypatch.setattr(sampling, "uniform_below", every_place)
    drawn = sampling.sample_negatives(
        jax.random.key(0), Rows.of(seen), jnp.asarray(user, jnp.int32), num, 12, weights
    )
    np.testing.assert_array_equal(drawn, np.repeat(unseen, own[unseen]))


def test_equal_weights_draw_like_none():
    """Every item is of as many users: uniform negatives, by other arithmetic."""
    weights = Weights.of(np.full(10, 6), 0.8, TRAIN)
    drawn = sampling.sample_negatives(
        jax.random.key(0), Rows.of(TRAIN), jnp.asarray(0, jnp.int32), 30_000, 10, weights
    )
    counts = np.bincount(drawn, minlength=10)
    np.testing.assert_array_equal(counts[ITEMS_OF[0]], 0)
    assert_distributed(np.delete(counts, ITEMS_OF[0]), np.full(6, 1 / 6))


def skewed_source(users: slice = slice(None), first: int = 0) -> sources.Source:
    return sources.training_source(
        TRAIN.part(users), None, first, skew=0.75, popularity=TRAIN.popularity
    )


def test_a_part_of_the_users_draws_by_popularity_what_it_draws_among_all():
    rows = jnp.asarray([*range(10), 3, -1], jnp.int32)
    whole = draw_batch(jax.random.key(1), skewed_source(), rows, 3, 2)
    backwards = draw_batch(jax.random.key(1), skewed_source(), rows[::-1], 3, 2)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[::-1], y), whole, backwards)

    some = skewed_source(slice(3, 5), int(TRAIN.offsets[3]))  # interactions 5 to 13
    part = draw_batch(jax.random.key(1), some, jnp.arange(5, dtype=jnp.int32), 3, 2)
    part = part._replace(users=part.users + 3)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[5:10]), part, whole)


def test_validation_negatives_go_by_training_popularity_and_are_in_neither_split():
    valid = interactions([[1], [5, 6], [0, 9], [], [2], [7]], 10)
    source = sources.validation_source(TRAIN, valid, skew=1.0, popularity=TRAIN.popularity)
    batch = draw_batch(jax.random.key(1), source, jnp.arange(7, dtype=jnp.int32), 20_000, 0)
    for row, user in enumerate(valid.users.tolist()):
        counts = np.bincount(batch.items[row, 1:], minlength=10)
        touched = [*ITEMS_OF[user], *valid.of(user)]
        assert counts[touched].sum() == 0
        share = np.delete(TRAIN.popularity, touched)
        assert_distributed(np.delete(counts, touched), share / share.sum())


# --- pools ---------------------------------------------------------------------------------------


draw_pool = jax.jit(sampling.draw_pool, static_argnames="num")


@pytest.mark.parametrize("skewed", [False, True], ids=["uniform", "skewed"])
def test_pools_are_independent_draws_from_the_whole_catalogue(skewed):
    source = skewed_source() if skewed else sources.training_source(TRAIN)
    key, step = jax.random.key(4), jnp.asarray(5, jnp.int32)
    pool = np.asarray(draw_pool(key, step, source, num=30_000))
    own = weights_of(source.weights) if skewed else np.ones(10)
    shares = own / own.sum()
    assert_distributed(np.bincount(pool, minlength=10), shares)
    # Neighbours are independent.
    pairs = np.bincount(10 * pool[::2] + pool[1::2], minlength=100)
    expected = len(pool) / 2 * np.outer(shares, shares).ravel()
    assert stats.chisquare(pairs, expected).pvalue > 1e-4

    other_steps = [np.asarray(draw_pool(key, step + n, source, num=1000)) for n in (0, 1, 2)]
    other_keys = [np.asarray(draw_pool(jax.random.key(n), step, source, num=1000)) for n in (5, 6)]
    different = [x.tobytes() for x in (*other_steps, *other_keys)]
    assert len(set(different)) == 5


@pytest.mark.parametrize("skewed", [False, True], ids=["uniform", "skewed"])
def test_a_pool_is_the_same_on_every_device_whatever_users_it_has(skewed):
    key, step = jax.random.key(4), jnp.asarray(5, jnp.int32)
    skew = {"skew": 0.75, "popularity": TRAIN.popularity} if skewed else {}
    pools = [
        draw_pool(key, step, sources.training_source(TRAIN.part(part), None, first, **skew), num=9)
        for part, first in ((slice(None), 0), (slice(3, 5), 5), (slice(1, 2), 4))
    ]
    for pool in pools[1:]:
        np.testing.assert_array_equal(pool, pools[0])


def test_pools_of_an_epoch_share_no_draws_with_its_rows():
    """Nor are the draws of a pool those that the rows of the same numbers make."""
    source = sources.training_source(interactions([[0, 1, 2, 3, 4, 5]] * 500, 1000))
    rows = jnp.arange(3000, dtype=jnp.int32)
    own = np.asarray(draw_batch(jax.random.key(4), source, rows, 1, 0).items[:, 1])
    pool = np.asarray(draw_pool(jax.random.key(4), jnp.asarray(7, jnp.int32), source, num=1))
    firsts = [
        int(draw_pool(jax.random.key(4), jnp.asarray(step, jnp.int32), source, num=1)[0])
        for step in range(30)
    ]
    assert pool[0] == firsts[7]
    assert sum(a == b for a, b in zip(firsts, own.tolist(), strict=False)) <= 2
    assert len(set(firsts)) > 20


unseen_of_pool = jax.jit(sampling.unseen_of_pool, static_argnames="num_items")


def by_sets(pool: np.ndarray, seen_of: list[set[int]], users: list[int]) -> np.ndarray:
    expected = np.zeros((len(users), len(pool)), bool)
    for row, user in enumerate(users):
        expected[row, oracles.places_that_count(pool.tolist(), seen_of[user])] = True
    return expected


@pytest.mark.parametrize("size", [1, 60, 700])
def test_unseen_items_of_a_pool_are_those_of_sets(size):
    """Users with 0 to 400 items: none, whole blocks of the search, and one more and less."""
    rng = np.random.default_rng(size)
    counts = [0, 1, 5, 127, 128, 129, 0, 256, 257, 400, 3]
    seen_of = [set(rng.permutation(500)[:count].tolist()) for count in counts]
    seen = Rows.of(interactions([sorted(items) for items in seen_of], 500))
    users = [9, 0, 3, 3, 10, 4, 8, 1, 5, 7, 2, 6]
    pool = rng.integers(500, size=size).astype(np.int32)
    if size > 1:
        pool[[0, 7, 11]] = min(seen_of[2]), min(seen_of[2]), 499
        assert len(set(pool.tolist())) < size
    found = unseen_of_pool(jnp.asarray(pool), seen, jnp.asarray(users, jnp.int32), num_items=500)
    expected = by_sets(pool, seen_of, users)
    np.testing.assert_array_equal(found, expected)
    assert expected.any()
    # Those who have next to nothing see nothing hidden: the first and the last item included.
    light = [row for row, user in enumerate(users) if counts[user] in (0, 1)]
    some = unseen_of_pool(
        jnp.asarray(pool), seen, jnp.asarray([users[row] for row in light], jnp.int32), 500
    )
    np.testing.assert_array_equal(some, expected[light])


def test_a_catalogue_as_a_pool_hides_what_users_have():
    catalogue = jnp.arange(10, dtype=jnp.int32)
    users = jnp.arange(6, dtype=jnp.int32)
    found = np.asarray(unseen_of_pool(catalogue, Rows.of(TRAIN), users, num_items=10))
    for user, items in enumerate(ITEMS_OF):
        np.testing.assert_array_equal(np.flatnonzero(~found[user]), items)


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_batch_with_a_pool(balance):
    source = sources.training_source(TRAIN)
    rows = jnp.asarray([*range(len(TRAIN)), -1, -1], jnp.int32)
    pool = jnp.asarray([3, 3, 9, 0, 5, 7, 5], jnp.int32)
    batch = draw_batch(jax.random.key(1), source, rows, 4, 6, pool, balance=balance)
    # As without one, but for the negatives: positives and histories are the same.
    plain = draw_batch(jax.random.key(1), source, rows, 4, 6)
    np.testing.assert_array_equal(batch.items, plain.items[:, :1])
    np.testing.assert_array_equal(batch.users, plain.users)
    jax.tree.map(np.testing.assert_array_equal, batch.history, plain.history)
    np.testing.assert_array_equal(batch.pool, pool)
    users = TRAIN.users.tolist()
    seen_of = [set(items) for items in ITEMS_OF]
    np.testing.assert_array_equal(
        batch.unseen[: len(users)], by_sets(np.asarray(pool), seen_of, users)
    )
    weights = [oracles.balance_weight(len(ITEMS_OF[user]), balance) for user in users]
    np.testing.assert_allclose(batch.weight, [*weights, 0, 0], rtol=1e-6)
    if balance == 1:
        np.testing.assert_allclose(np.sum(batch.weight), 5, rtol=1e-6)  # of the users with any


def test_balance_goes_by_training_interactions_in_validation_too():
    """The second user has none, and counts like one with one."""
    valid = interactions([[1], [5, 6], [0, 9], [], [2], [7]], 10)
    source = sources.validation_source(TRAIN, valid)
    rows = jnp.arange(7, dtype=jnp.int32)
    batch = draw_batch(jax.random.key(1), source, rows, 2, 0, balance=0.5)
    expected = [oracles.balance_weight(len(ITEMS_OF[user]), 0.5) for user in valid.users.tolist()]
    np.testing.assert_allclose(batch.weight, expected, rtol=1e-6)
    pool = jnp.arange(10, dtype=jnp.int32)
    unseen = draw_batch(jax.random.key(1), source, rows, 2, 0, pool).unseen
    for row, user in enumerate(valid.users.tolist()):
        touched = sorted([*ITEMS_OF[user], *valid.of(user).tolist()])
        np.testing.assert_array_equal(np.flatnonzero(~unseen[row]), touched)


@pytest.mark.parametrize("pool", ["triplet", "batch", "catalogue"])
def test_a_configuration_says_what_is_drawn(pool):
    """The pool of a batch goes by the step, all else does not."""
    config = Config(
        model=ModelConfig("hlr", dim=4, options={"slots": 2}),
        sampling=SamplingConfig(
            negatives=6, pool=pool, skew=0.0 if pool == "catalogue" else 0.75, history_length=3
        ),
        loss=LossConfig(balance=0.5),
    )
    model = models.build(config.model.name, config.model.dim, config.model.options)
    source, key = skewed_source(), jax.random.key(2)
    rows = jnp.asarray([0, 4, 5, 13, -1], jnp.int32)
    step = jnp.asarray(3, jnp.int32)
    wanted: Any = {
        "triplet": None,
        "batch": sampling.draw_pool(key, step, source, 6),
        "catalogue": jnp.arange(10, dtype=jnp.int32),
    }
    expected = draw_batch(key, source, rows, 6, 3, wanted[pool], balance=0.5)
    found = draw_batch_of_config(key, source, rows, step, model, config)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found.items.shape == (5, 7 if pool == "triplet" else 1)
    later = draw_batch_of_config(key, source, rows, step + 1, model, config)
    changed = set()
    for name, x in found._asdict().items():
        for a, b in zip(*map(jax.tree.leaves, (x, getattr(later, name))), strict=True):
            if (a != b).any():
                changed.add(name)
    assert changed == ({"pool", "unseen"} if pool == "batch" else set())


def test_a_loss_without_any_negative_that_counts_is_zero():
    """The one user has all that the pool may have: no term, and no division by it."""
    train, valid = interactions([[0, 1, 2]], 4), interactions([[3]], 4)
    dataset = Dataset("tiny", train, valid, train, np.arange(1), np.arange(4))
    config = Config(
        model=ModelConfig("cml", dim=3), sampling=SamplingConfig(negatives=2, pool="batch")
    )
    placement = Placement.replicated(1, 1, 4)
    model = models.build("cml", 3, {})
    params = placement.new_params(jax.random.key(0), model, config)
    positives = recommender.validation_positives(placement, dataset, config)
    for name in ("hinge", "softmax"):
        loss = dataclasses.replace(config.loss, name=name)
        other = dataclasses.replace(config, loss=loss)
        assert placement.mean_loss(params, positives, jax.random.key(1), model, other) == 0

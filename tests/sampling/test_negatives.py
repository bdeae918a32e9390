"""Negatives: what may be drawn, and how often, against exact probabilities."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from support.interactions import ITEMS_OF, TRAIN, assert_distributed, interactions, sampling_source

from hlr_jax.sampling import negatives
from hlr_jax.sampling.negatives import ItemWeights, item_weights, sample_negatives
from hlr_jax.sampling.sources import SamplingSource


@functools.partial(jax.jit, static_argnames="num")
def draw_for_all(seed: int, source: SamplingSource, num: int) -> jax.Array:
    """`[U, num]`; of every user."""
    users = jnp.arange(len(source.seen.offsets) - 1)
    keys = jax.random.split(jax.random.key(seed), len(users))
    return jax.vmap(lambda k, u: sample_negatives(k, source, u, num))(keys, users)


def widths(weights: ItemWeights) -> np.ndarray:
    """`[I]` of each item."""
    before = np.asarray(weights.widths_before, np.int64)
    return np.diff(np.append(before, int(weights.width)))


# --- uniform -------------------------------------------------------------------------------------

SOME_ITEMS = 12


@settings(max_examples=60)
@given(
    st.lists(
        st.sets(st.integers(0, SOME_ITEMS - 1), max_size=SOME_ITEMS - 1), min_size=5, max_size=5
    )
)
def test_negatives_are_all_unseen_items_and_no_seen_one(seen_of):
    source = sampling_source(interactions([sorted(seen) for seen in seen_of], SOME_ITEMS))
    # Of one length, whatever the example, so that few programs are compiled.
    items = jnp.pad(source.seen.items, (0, 5 * SOME_ITEMS - len(source.seen.items)))
    rows = source.seen.replace(items=items)
    drawn = np.asarray(draw_for_all(3, source.replace(seen=rows, history=rows), 600))
    for user, seen in enumerate(seen_of):
        # That 600 draws miss one of 12 has a probability below 1e-21.
        assert set(drawn[user].tolist()) == set(range(SOME_ITEMS)) - seen


SEEN = {
    "none": [],
    "first": [0],
    "last": [49],
    "first and last": [0, 49],
    "a run at the start": list(range(40)),
    "a run at the end": list(range(10, 50)),
    "every second": list(range(0, 50, 2)),
    "mixed": [*range(3, 9), 20, 22, *range(30, 48)],
    "all but one": [i for i in range(50) if i != 17],
}


def test_negatives_are_uniform_over_the_unseen():
    """Users one after another: neighbours in the arrays must not be taken for a user's items."""
    train = interactions([[0, 1, 2, 5], *SEEN.values(), [0, 48, 49]], 50)
    drawn = np.asarray(draw_for_all(5, sampling_source(train), 50_000))
    for user, (name, seen) in enumerate(SEEN.items(), start=1):
        counts = np.bincount(drawn[user], minlength=50)
        assert len(counts) == 50, name
        unseen = np.setdiff1d(np.arange(50), seen)
        assert counts[unseen].sum() == 50_000, name
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
    drawn = np.asarray(draw_for_all(0, sampling_source(interactions(items_of, num_items)), 60_000))
    for user, seen in enumerate(items_of):
        counts = np.bincount(drawn[user], minlength=num_items)
        assert not counts[seen].any()
        unseen = np.setdiff1d(np.arange(num_items), seen)
        assert_distributed(counts[unseen], np.full(len(unseen), 1 / len(unseen)))


def test_the_negatives_of_a_triplet_are_independent():
    source = sampling_source(interactions([[1, 4, 5]], 9))
    user = jnp.asarray(0, jnp.int32)
    keys = jax.random.split(jax.random.key(6), 60_000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: sample_negatives(k, source, user, 3)))(keys))
    number = {item: n for n, item in enumerate([0, 2, 3, 6, 7, 8])}
    numbers = np.vectorize(number.get)(drawn)
    triples = np.ravel_multi_index(tuple(numbers.T), (6, 6, 6))
    # All 216 triples, those with repetitions too, come equally often.
    assert_distributed(np.bincount(triples, minlength=216), np.full(216, 1 / 216))


# --- weights of items ----------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.25, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("num_items", [1, 7, 20_000])
def test_weights_are_whole_shares_of_popularity_to_a_power(num_items, exponent):
    popularity = np.random.default_rng(0).integers(0, 3000, num_items)
    weights = widths(item_weights(popularity, exponent, interactions([[]], num_items)))
    # An item that nobody has is as likely as one with one user.
    share = np.maximum(popularity, 1) ** exponent
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
    weights = item_weights(POPULARITY, 0.75, seen)
    exact = [int(widths(weights)[seen.of(user)].sum()) for user in range(12)]
    assert sum(exact) > 2**33
    before = np.asarray(weights.seen_widths)
    assert before.dtype == np.uint32
    starts, stops = seen.offsets[:-1], seen.offsets[1:]
    np.testing.assert_array_equal(before[stops] - before[starts], exact)
    assert (before[stops] < before[starts]).sum() >= 2  # the sum began again within those


# --- by popularity -------------------------------------------------------------------------------

# Users with nothing, one end or both, a gap, two items, and all but one.
SOME_OF = [[], [0], [11], [0, 11], [4, 5, 6], [1, 8], [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]]


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_negatives_follow_the_weights_of_unseen_items(exponent):
    """Also for users where the sums of weights wrap round."""
    seen = interactions([*SOME_OF, *MANY_OF], 12)
    source = sampling_source(seen, exponent=exponent, popularity=POPULARITY)
    drawn = np.asarray(draw_for_all(3, source, 30_000))
    for user in range(seen.num_users):
        counts = np.bincount(drawn[user], minlength=12)
        assert len(counts) == 12
        unseen = np.setdiff1d(np.arange(12), seen.of(user))
        assert counts[unseen].sum() == 30_000, "a seen item was drawn"
        if len(unseen) > 1:
            likely = oracles.negative_probabilities(POPULARITY.tolist(), seen.of(user), exponent)
            own = widths(source.prepared)[unseen]
            np.testing.assert_allclose(own / own.sum(), likely[unseen], rtol=1e-6)
            assert_distributed(counts[unseen], own / own.sum())


@pytest.mark.parametrize("offset", [0, 2**32 - 30], ids=["from 0", "beyond 2^32"])
def test_every_place_leads_to_the_item_that_covers_it(offset, monkeypatch):
    """Each of the places there are in turn: unseen items come exactly their weights' times."""
    seen = interactions(SOME_OF, 12)
    own = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    seen_upto = offset + np.append(0, np.cumsum(own[seen.items]))
    weights = ItemWeights(
        jnp.asarray(np.cumsum(own) - own, jnp.int32),
        jnp.asarray(own.sum(), jnp.int32),
        jnp.asarray(seen_upto % 2**32, jnp.uint32),
    )
    total = int(own.sum())

    def every_place(key: jax.Array, bound: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.arange(total, dtype=jnp.int32) % bound

    monkeypatch.setattr(negatives, "uniform_below", every_place)
    source = sampling_source(seen).replace(prepared=weights)
    drawn = jax.jit(
        jax.vmap(lambda user: sample_negatives(jax.random.key(0), source, user, total))
    )(jnp.arange(len(SOME_OF), dtype=jnp.int32))
    for user in range(len(SOME_OF)):
        unseen = np.setdiff1d(np.arange(12), seen.of(user))
        once = np.repeat(unseen, own[unseen])
        # It begins again after just as many places as there are.
        np.testing.assert_array_equal(drawn[user], np.resize(once, total))


def test_equal_weights_draw_like_none():
    """Every item is of as many users: uniform negatives, by other arithmetic."""
    source = sampling_source(TRAIN, exponent=0.8, popularity=np.full(10, 6))
    counts = np.bincount(draw_for_all(0, source, 30_000)[0], minlength=10)
    np.testing.assert_array_equal(counts[ITEMS_OF[0]], 0)
    assert_distributed(np.delete(counts, ITEMS_OF[0]), np.full(6, 1 / 6))

"""Batches: positives, negatives, histories and weights, by which key and from which split."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.interactions import (
    ITEMS_OF,
    TRAIN,
    assert_distributed,
    draw_batch,
    interactions,
    training_source,
    validation_source,
)

from hlr_jax.errors import InputError
from hlr_jax.sampling.batches import Drawing
from hlr_jax.sampling.samplers import FullCatalog, PerExample, Shared

VALID_OF = [[1], [5, 6], [0, 9], [], [2], [7]]
VALID = interactions(VALID_OF, 10)


def drawing(negatives: int, places: int, exponent: float = 0.0) -> Drawing:
    return Drawing(PerExample(num_negatives=negatives), exponent, places)


def rows_of(*numbers: int) -> jax.Array:
    return jnp.asarray(numbers, jnp.int32)


@pytest.mark.parametrize("kind", ["uniform", "unpopular"])
def test_a_training_batch(kind):
    source = training_source(TRAIN, history=kind)
    rows = rows_of(*range(len(TRAIN)), -1, -1, -1)
    batch = draw_batch(drawing(4, 6), source, rows, jax.random.key(1))
    assert batch.negatives.items.shape == batch.negatives.mask.shape == (len(TRAIN) + 3, 4)
    assert batch.negatives.mask.all()
    pairs = [(user, item) for user, items in enumerate(ITEMS_OF) for item in items]
    for row, (user, positive) in enumerate(pairs):
        assert int(batch.users[row]) == user
        assert int(batch.positives[row]) == positive
        assert not set(batch.negatives.items[row].tolist()) & set(ITEMS_OF[user])
        # All other items fit: none is missing, and the target is not there.
        chosen = batch.history.items[row][batch.history.mask[row]].tolist()
        assert sorted(chosen) == [item for item in ITEMS_OF[user] if item != positive]
    np.testing.assert_array_equal(batch.weight, [1.0] * len(pairs) + [0.0] * 3)


def test_a_model_without_history_gets_none():
    batch = draw_batch(drawing(2, 0), training_source(TRAIN), rows_of(0, 1), jax.random.key(1))
    assert batch.history.items.shape == batch.history.mask.shape == (2, 0)


def test_a_batch_follows_from_its_key():
    source, rows = training_source(TRAIN), jnp.arange(len(TRAIN), dtype=jnp.int32)
    first, again, other = (
        draw_batch(drawing(5, 2), source, rows, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.negatives.items != other.negatives.items).any()
    assert (first.history.items != other.history.items).any()


def test_rows_of_a_batch_are_drawn_independently():
    # Users alike in everything but their number: the rows must not repeat one another.
    source = training_source(interactions([[0, 1, 2, 3, 4, 5]] * 500, 1000))
    rows = 6 * jnp.arange(500, dtype=jnp.int32)
    batch = draw_batch(drawing(1, 2), source, rows, jax.random.key(2))
    assert len(np.unique(batch.negatives.items)) > 300
    assert len(np.unique(np.asarray(batch.history.items), axis=0)) > 10


@pytest.mark.parametrize(("kind", "exponent"), [("uniform", 0.75), ("unpopular", 0.0)])
def test_an_interaction_draws_the_same_wherever_it_is(kind, exponent):
    """In any batch, at any place of it, and from a source of some users alone."""
    settings = {"history": kind, "exponent": exponent, "popularity": TRAIN.popularity}
    source = training_source(TRAIN, **settings)
    rows, key = rows_of(*range(10), 3, -1), jax.random.key(1)
    whole = draw_batch(drawing(3, 2), source, rows, key)
    backwards = draw_batch(drawing(3, 2), source, rows[::-1], key)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[::-1], y), whole, backwards)

    # Two users, whose interactions are those from 5 to 13.
    some = training_source(TRAIN.part(slice(3, 5)), int(TRAIN.offsets[3]), **settings)
    part = draw_batch(drawing(3, 2), some, rows_of(*range(5)), key)
    np.testing.assert_array_equal(part.users + 3, whole.users[5:10])
    part = part._replace(users=part.users + 3)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[5:10]), part, whole)


# --- validation ----------------------------------------------------------------------------------


def test_validation_has_histories_of_training_and_negatives_of_neither_split():
    source, rows = validation_source(TRAIN, VALID), jnp.arange(len(VALID), dtype=jnp.int32)
    batch = draw_batch(drawing(400, 8), source, rows, jax.random.key(1))
    pairs = [(user, item) for user, items in enumerate(VALID_OF) for item in items]
    for row, (user, positive) in enumerate(pairs):
        assert (int(batch.users[row]), int(batch.positives[row])) == (user, positive)
        known = {*ITEMS_OF[user], *VALID_OF[user]}
        assert set(batch.negatives.items[row].tolist()) == set(range(10)) - known
        chosen = batch.history.items[row][batch.history.mask[row]].tolist()
        assert sorted(chosen) == ITEMS_OF[user]


def test_validation_negatives_go_by_training_popularity():
    source = validation_source(TRAIN, VALID, exponent=1.0)
    rows = jnp.arange(len(VALID), dtype=jnp.int32)
    batch = draw_batch(drawing(20_000, 0), source, rows, jax.random.key(1))
    for row, user in enumerate(VALID.users.tolist()):
        counts = np.bincount(batch.negatives.items[row], minlength=10)
        known = [*ITEMS_OF[user], *VALID_OF[user]]
        assert counts[known].sum() == 0
        share = oracles.negative_probabilities(TRAIN.popularity.tolist(), known, 1.0)
        assert_distributed(np.delete(counts, known), np.delete(share, known))


def test_a_pair_in_training_and_validation_is_refused():
    valid = interactions([[3], [], [2], [], [], []], 10)
    with pytest.raises(InputError, match="2 pairs are both in the training and the validation"):
        validation_source(TRAIN, valid)


# --- what a positive counts ----------------------------------------------------------------------


def test_positives_count_by_the_training_interactions_of_their_users():
    """In validation too, where the second user has none and counts like one with one."""
    sources = [(training_source(TRAIN), TRAIN), (validation_source(TRAIN, VALID), VALID)]
    for exponent in (0.0, 0.5, 1.0):
        for source, positives in sources:
            rows = rows_of(*range(len(positives)), -1, -1)
            batch = draw_batch(drawing(2, 0, exponent), source, rows, jax.random.key(1))
            users = positives.users.tolist()
            weights = [oracles.user_weight(len(ITEMS_OF[user]), exponent) for user in users]
            np.testing.assert_allclose(batch.weight, [*weights, 0, 0], rtol=1e-6)
            if exponent == 1 and positives is TRAIN:
                np.testing.assert_allclose(np.sum(batch.weight), 5, rtol=1e-6)  # users with any


# --- negatives that a batch shares ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Shared(num_negatives=7), FullCatalog()])
def test_a_batch_with_shared_negatives(sampler):
    """As with own negatives but for these: positives and histories are the same."""
    source, key = training_source(TRAIN), jax.random.key(1)
    rows = rows_of(*range(len(TRAIN)), -1, -1)
    batch = draw_batch(Drawing(sampler, history_length=6), source, rows, key)
    plain = draw_batch(drawing(4, 6), source, rows, key)
    own = batch._replace(negatives=plain.negatives)
    jax.tree.map(np.testing.assert_array_equal, own, plain)
    items = batch.negatives.items.tolist()
    assert len(items) == (10 if isinstance(sampler, FullCatalog) else 7)
    for row, user in enumerate(TRAIN.users.tolist()):
        expected = oracles.unseen_negatives(items, set(ITEMS_OF[user]))
        np.testing.assert_array_equal(batch.negatives.mask[row], expected)


def test_shared_negatives_of_validation_are_in_neither_split():
    source, rows = validation_source(TRAIN, VALID), jnp.arange(len(VALID), dtype=jnp.int32)
    batch = draw_batch(Drawing(FullCatalog()), source, rows, jax.random.key(1))
    for row, user in enumerate(VALID.users.tolist()):
        known = sorted([*ITEMS_OF[user], *VALID_OF[user]])
        np.testing.assert_array_equal(np.flatnonzero(~batch.negatives.mask[row]), known)

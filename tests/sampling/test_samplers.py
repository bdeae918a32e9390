"""Samplers by name: negatives that a batch shares, and what a configuration builds."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from support.interactions import (
    ITEMS_OF,
    SMALLEST_P_VALUE,
    TRAIN,
    assert_distributed,
    draw_batch,
    interactions,
    training_source,
)
from support.placed_runs import data

from hlr_jax.config import Config, LossConfig, ModelConfig, SamplingConfig, build
from hlr_jax.sampling import negatives
from hlr_jax.sampling.batches import Drawing
from hlr_jax.sampling.samplers import PerExample, Shared
from hlr_jax.sampling.sources import DeviceInteractions, TripletSource
from hlr_jax.training.inputs import make_objective, make_recipe

FIRST_ROW = jnp.zeros(1, jnp.int32)


def draw_shared(seed: int, step: int, source: TripletSource, num: int) -> np.ndarray:
    """The items that the positives of a step share."""
    drawing = Drawing(Shared(num_negatives=num))
    step_of = jnp.asarray(step, jnp.int32)
    batch = draw_batch(drawing, source, FIRST_ROW, jax.random.key(seed), step_of)
    return np.asarray(batch.negatives.items)


def skewed_source(users: slice = slice(None), first: int = 0) -> TripletSource:
    part = TRAIN.part(users)
    return training_source(part, first, exponent=0.75, popularity=TRAIN.popularity)


@pytest.mark.parametrize("exponent", [0.0, 0.75])
def test_shared_negatives_are_independent_draws_from_the_whole_catalogue(exponent):
    source = training_source(TRAIN, exponent=exponent)
    drawn = draw_shared(4, 5, source, 30_000)
    shares = oracles.negative_probabilities(TRAIN.popularity.tolist(), [], exponent)
    assert_distributed(np.bincount(drawn, minlength=10), shares)
    # Neighbours are independent.
    pairs = np.bincount(10 * drawn[::2] + drawn[1::2], minlength=100)
    expected = len(drawn) / 2 * np.outer(shares, shares).ravel()
    assert stats.chisquare(pairs, expected).pvalue > SMALLEST_P_VALUE

    others = [draw_shared(4, step, source, 1000) for step in (5, 6, 7)]
    others += [draw_shared(seed, 5, source, 1000) for seed in (5, 6)]
    assert len({x.tobytes() for x in others}) == 5


@pytest.mark.parametrize("exponent", [0.0, 0.75])
def test_shared_negatives_are_the_same_on_every_device_whatever_users_it_has(exponent):
    settings = {"exponent": exponent, "popularity": TRAIN.popularity}
    drawn = [
        draw_shared(4, 5, training_source(TRAIN.part(part), first, **settings), 9)
        for part, first in ((slice(None), 0), (slice(3, 5), 5), (slice(0, 1), 0))
    ]
    for items in drawn[1:]:
        np.testing.assert_array_equal(items, drawn[0])


def test_shared_negatives_of_an_epoch_have_no_draws_in_common_with_its_rows():
    """Nor are the draws of a step those that the rows of the same numbers make."""
    source = training_source(interactions([[0, 1, 2, 3, 4, 5]] * 500, 1000))
    rows = jnp.arange(3000, dtype=jnp.int32)
    own = draw_batch(Drawing(PerExample()), source, rows, jax.random.key(4)).negatives.items[:, 0]
    firsts = [int(draw_shared(4, step, source, 1)[0]) for step in range(30)]
    assert draw_shared(4, 7, source, 1)[0] == firsts[7]
    assert sum(a == b for a, b in zip(firsts, own.tolist(), strict=False)) <= 2
    assert len(set(firsts)) > 20


# --- which of them count -------------------------------------------------------------------------


unseen_of_shared = jax.jit(negatives.unseen_of_shared, static_argnames="num_items")


@pytest.mark.parametrize("size", [1, 60, 700])
def test_unseen_items_of_shared_ones_are_those_of_sets(size):
    """Users with 0 to 400 items: none, whole blocks of the search, and one more and less."""
    rng = np.random.default_rng(size)
    counts = [0, 1, 5, 127, 128, 129, 0, 256, 257, 400, 3]
    seen_of = [set(rng.permutation(500)[:count].tolist()) for count in counts]
    seen = DeviceInteractions.of(interactions([sorted(items) for items in seen_of], 500))
    users = [9, 0, 3, 3, 10, 4, 8, 1, 5, 7, 2, 6]
    items = rng.integers(500, size=size).astype(np.int32)
    if size > 1:
        items[[0, 7, 11]] = min(seen_of[2]), min(seen_of[2]), 499
        assert len(set(items.tolist())) < size

    def found_for(users: list[int]) -> np.ndarray:
        chosen = jnp.asarray(users, jnp.int32)
        return np.asarray(unseen_of_shared(jnp.asarray(items), seen, chosen, num_items=500))

    expected = np.array([oracles.unseen_negatives(items.tolist(), seen_of[u]) for u in users])
    np.testing.assert_array_equal(found_for(users), expected)
    assert expected.any()
    # Those who have next to nothing see nothing hidden: the first and the last item included.
    light = [row for row, user in enumerate(users) if counts[user] in (0, 1)]
    np.testing.assert_array_equal(found_for([users[row] for row in light]), expected[light])


def test_a_whole_catalogue_hides_what_users_have_and_what_is_no_item():
    items = jnp.asarray([*range(10), 10, 12], jnp.int32)
    users, seen = jnp.arange(6, dtype=jnp.int32), DeviceInteractions.of(TRAIN)
    found = np.asarray(unseen_of_shared(items, seen, users, num_items=10))
    for user, own in enumerate(ITEMS_OF):
        np.testing.assert_array_equal(np.flatnonzero(~found[user]), [*own, 10, 11])


# --- by configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["per_example", "shared", "full_catalog"])
def test_a_configuration_says_what_is_drawn(name):
    """What a batch shares goes by the step, all else does not."""
    options = {"num_negatives": 6, "popularity_exponent": 0.75}
    config = Config(
        model=ModelConfig("hlr", dim=4, options={"slots": 2}),
        sampling=SamplingConfig(
            negatives=name, history_length=3, options={} if name == "full_catalog" else options
        ),
        loss=LossConfig(user_weight_exponent=0.5),
    )
    objective = make_objective(config, build.build_model(config), 10, None)
    drawing = make_recipe(config, objective, data(), steps_per_epoch=4).drawing
    source, key = skewed_source(), jax.random.key(2)
    rows = jnp.asarray([0, 4, 5, 13, -1], jnp.int32)
    found, later = (
        draw_batch(drawing, source, rows, key, jnp.asarray(step, jnp.int32)) for step in (3, 4)
    )
    assert found.history.items.shape == (5, 3)
    weights = [oracles.user_weight(len(ITEMS_OF[user]), 0.5) for user in (0, 2, 3, 4)]
    np.testing.assert_allclose(found.weight, [*weights, 0], rtol=1e-6)
    items = np.asarray(found.negatives.items)
    if name == "per_example":
        assert items.shape == (5, 6)
        own = draw_batch(
            Drawing(PerExample(6, 0.75), 0.5, history_length=3), source, rows, key
        ).negatives.items
        np.testing.assert_array_equal(items, own)
    else:
        wanted = np.arange(10) if name == "full_catalog" else draw_shared(2, 3, source, 6)
        np.testing.assert_array_equal(items, wanted)
    changed = {
        field
        for field, x in found._asdict().items()
        for a, b in zip(*map(jax.tree.leaves, (x, getattr(later, field))), strict=True)
        if (a != b).any()
    }
    assert changed == ({"negatives"} if name == "shared" else set())

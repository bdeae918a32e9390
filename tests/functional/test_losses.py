"""Losses of a row, against loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from numpy.typing import ArrayLike
from support.cases import loss_name, numbers_of

from hlr_jax.errors import InputError
from hlr_jax.functional import (
    NegativeDistances,
    contrastive,
    distance_at_rank,
    hardest_hinge,
    sampled_softmax,
    squared_margin,
    triplet_hinge,
    two_sided_hinge,
)
from hlr_jax.functional.losses import LOSSES
from hlr_jax.functional.losses.psl import PSL
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.functional.losses.softmax_at_k import SoftmaxAtK

ITEMS = 1000
ROWS = 40


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 4, size=shape)


@jax.jit
def loss_and_terms(loss: Any, positive: Any, values: Any, mask: Any) -> Any:
    """The registered class; one program for all its options."""
    negatives = NegativeDistances(values, mask, ITEMS)
    return loss(positive, negatives), loss.num_terms(positive, negatives)


# Exponentials of -4 / 0.01 are no float32; what matters are differences.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    name: [{"margin": 0.0}, {"margin": 0.5}, {"margin": 2.0}] for name in LOSSES.names()
} | {
    "contrastive": [{"margin": 0.5}, {"margin": 2.0, "negative_weight": 3.0}],
    "softmax": [{"temperature": x} for x in (0.01, 0.1, 0.5, 2.0)],
    "psl": [
        {"activation": activation, "temperature": temperature, "scale": scale}
        for activation in ("tanh", "atan", "relu")
        for temperature, scale in ((0.5, 4.0), (0.1, 4.0), (0.5, 1.5))
    ],
    # Of 10 among 1000 negatives the first 500 are 5; of 3, the first or second.
    "softmax_at_k": [
        {"cutoff": 10, "temperature": 0.1},
        {"cutoff": 500, "temperature": 0.5, "weight_temperature": 2.0},
        {"cutoff": 5000, "temperature": 0.5, "weight_temperature": 0.1},
    ],
}


@pytest.mark.parametrize("name", LOSSES.names())
def test_losses_match_the_oracle(name: str) -> None:
    """With 1, 3 and 10 negatives, of which some do not count; in some rows none does."""
    for count in (1, 3, 10):
        positive, values = uniform(0, ROWS), uniform(1, ROWS, count)
        mask = np.random.default_rng(2).random(values.shape) < 0.7
        mask[0], mask[-1] = True, False
        for options in OPTIONS[name]:
            loss = LOSSES.build(name, options)
            found, terms = loss_and_terms(loss, f32(positive), f32(values), jnp.asarray(mask))
            assert found.dtype == jnp.float32
            assert found.shape == terms.shape == (ROWS,)
            arguments = dict(num_items=ITEMS, **numbers_of(loss))
            expected = [
                oracles.loss_of_row(loss_name(loss), *row, **arguments)
                for row in zip(positive, values, mask, strict=True)
            ]
            losses, of_terms = zip(*expected, strict=True)
            assert max(losses) > 0
            atol = 1e-6 / options.get("temperature", 1.0)
            np.testing.assert_allclose(found, losses, rtol=1e-5, atol=atol)
            np.testing.assert_array_equal(terms, of_terms)


def held_constant(
    name: str, positive: float, values: np.ndarray, mask: np.ndarray
) -> dict[str, tuple[float, float]]:
    """What a loss of a row holds constant in its gradient."""
    if name != "softmax_at_k":
        return {}
    counted = values[mask].tolist()
    last = oracles.top_k_threshold(counted, len(values), ITEMS, SoftmaxAtK().cutoff)
    return {"held": (positive, last)}


@pytest.mark.parametrize("name", LOSSES.names())
def test_gradients_are_those_of_the_oracle_and_finite(name: str) -> None:
    """In the last row no negative counts; in the one before it, none is farther."""
    positive, values = uniform(3, 7), uniform(4, 7, 5)
    values[5] = positive[5] - uniform(5, 5) / 8
    mask = np.random.default_rng(6).random(values.shape) < 0.7
    mask[6] = False
    assert mask[5].any()
    loss = LOSSES.build(name, {})
    arguments = dict(num_items=ITEMS, **numbers_of(loss))
    held = [held_constant(name, *row) for row in zip(positive, values, mask, strict=True)]

    def expected(point: dict[str, np.ndarray]) -> float:
        rows = zip(point["positive"], point["values"], mask, held, strict=True)
        return sum(oracles.loss_of_row(name, *row, **arguments, **x)[0] for *row, x in rows)

    by_differences = oracles.numerical_gradient(expected, {"positive": positive, "values": values})
    with jax.enable_x64(True):
        found = jax.grad(lambda *x: loss_and_terms(loss, *x, jnp.asarray(mask))[0].sum(), (0, 1))(
            jnp.asarray(positive), jnp.asarray(values)
        )
        found = [np.asarray(x) for x in found]
    for x, y in zip(found, by_differences.values(), strict=True):
        assert np.abs(y).max() > 0.1
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
    assert (found[1][~mask] == 0).all()
    pulls_without_any = name == "contrastive"
    assert found[0][6] == pulls_without_any
    if not pulls_without_any:
        # All together move nothing: only differences of distances count.
        np.testing.assert_allclose(found[0], -found[1].sum(axis=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES.names())
def test_what_is_not_a_number_shows_where_it_counts(name: str) -> None:
    """A run that diverges is to be noticed, and what is masked is not."""
    mask = np.array([[True, True], [True, False], [True, True]])
    values = f32([[1, np.nan], [1, np.nan], [np.inf, 1]])
    found, _ = loss_and_terms(LOSSES.build(name, {}), f32([1, 1, 1]), values, jnp.asarray(mask))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])
    assert name in ("cpe", "sfcml") or np.isfinite(found[2])


def test_hinges_match_the_oracle_one_by_one_and_broadcast() -> None:
    positive, values = f32(uniform(0, 2, 3)), f32(uniform(1, 2, 3, 4))
    mask = jnp.ones((2, 3, 4), bool)
    hinge = triplet_hinge(positive, values, mask, 0.5)
    for *row, k in np.ndindex(2, 3, 4):
        expected = oracles.loss_of_row("hinge", positive[*row], [values[*row, k]], margin=0.5)[0]
        np.testing.assert_allclose(hinge[*row, k], expected, rtol=1e-5, atol=1e-6)
    alone = triplet_hinge(positive[1, 2], values[1, 2], mask[1, 2], 0.5)
    np.testing.assert_array_equal(alone, hinge[1, 2])


def test_hinge_is_zero_with_zero_gradient_at_and_beyond_the_margin() -> None:
    """The positive may be exactly a margin closer."""
    positive, values = f32([1.0]), f32([[1.0, 1.25, 1.5, 1.75, 10.0]])
    mask = jnp.ones((1, 5), bool)
    hinge = triplet_hinge(positive, values, mask, 0.5)
    np.testing.assert_array_equal(hinge, [[0.5, 0.25, 0, 0, 0]])
    of_all = jax.grad(lambda p, n: triplet_hinge(p, n, mask, 0.5).sum(), (0, 1))
    gradients = of_all(positive, values)
    np.testing.assert_array_equal(gradients[0], [2])
    np.testing.assert_array_equal(gradients[1], [[-1, -1, 0, 0, 0]])


def test_the_hardest_hinge_is_of_one_negative_alone() -> None:
    mask = jnp.asarray([[True] * 3, [True] * 3, [False, True, False]])

    def hardest(positive: jax.Array, values: jax.Array) -> jax.Array:
        return hardest_hinge(triplet_hinge(positive, values, mask, 0.5)).sum()

    values = f32([[0.75, 0.25, 1.0], [2, 3, 4], [0, 1, 0]])
    found = jax.value_and_grad(hardest, (0, 1))(f32([1, 1, 1]), values)
    np.testing.assert_array_equal(found[0], 1.25 + 0 + 0.5)
    np.testing.assert_array_equal(found[1][0], [1, 0, 1])
    np.testing.assert_array_equal(found[1][1], [[0, -1, 0], [0, 0, 0], [0, -1, 0]])


def test_a_gap_counts_on_both_sides_of_the_margin() -> None:
    """By hand: a gap of the margin is best; more is as bad as less."""
    positive, values = f32([1, 1, 1, 1]), f32([[1.5, 9], [2, 9], [1.25, 1.5], [0, 7]])
    mask = jnp.asarray([[True, True]] * 3 + [[False, False]])
    found = two_sided_hinge(positive, values, mask, 0.5)
    np.testing.assert_array_equal(found, [[0, 7.5], [0.5, 7.5], [0.25, 0], [0, 0]])
    found = squared_margin(positive, values, mask, 0.5)
    np.testing.assert_array_equal(found, [7.5**2 / 2, (0.25 + 7.5**2) / 2, 0.0625 / 2, 0])


def test_far_distances_neither_overflow_nor_vanish_in_a_softmax() -> None:
    far = f32([1e4, 3e4, 1e4 + 1])
    found = sampled_softmax(far[:1], far[None, 1:], jnp.ones((1, 2), bool), 0.5)
    np.testing.assert_allclose(found, [np.log1p(np.exp(-2))], rtol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "atan", "relu"])
def test_surrogates_of_the_exponential_are_a_softmax_at_a_large_scale(activation: str) -> None:
    """And at a small one a close negative weighs less, and a far one not more."""
    negatives = NegativeDistances(f32([[1.0, 3.0], [9.0, 9.0]]), jnp.ones((2, 2), bool), ITEMS)
    softmax = Softmax(0.5)(f32([2.0, 2.0]), negatives)
    with jax.enable_x64(True):
        exact = NegativeDistances(jnp.asarray(negatives.values, float), negatives.mask, ITEMS)
        found = PSL(activation, 0.5, 1e6)(jnp.asarray([2.0, 2.0]), exact)
    np.testing.assert_allclose(found, softmax, rtol=1e-4)
    bent = PSL(activation, 0.5, 4.0)(f32([2.0, 2.0]), negatives)
    assert (bent < softmax - 1e-7).all()


def test_negatives_that_a_surrogate_leaves_out_have_no_gradient() -> None:
    """At and beyond the scale for relu; farther than any distance in the ball for atan."""
    for activation, far in (("relu", [6.0, 7.0]), ("atan", [9.0, 50.0])):

        def loss(values: jax.Array, activation: str = activation) -> jax.Array:
            negatives = NegativeDistances(values, jnp.ones((1, 3), bool), ITEMS)
            return PSL(activation)(f32([2.0]), negatives).sum()

        value, gradient = jax.value_and_grad(loss)(f32([[3.0, *far]]))
        alone = oracles.loss_of_row("psl", 2.0, [3.0], activation=activation)[0]
        np.testing.assert_allclose(value, alone, rtol=1e-5)
        assert gradient[0, 0] < 0
        np.testing.assert_array_equal(gradient[0, 1:], [0, 0])


def test_the_weight_of_a_positive_is_by_the_last_of_the_first_k() -> None:
    """By hand: with all 4 items, and with 2 of 4, of which the first stands for the first 2."""
    values = f32([[3, 1, 2, 4], [3, 1, 2, 4]])
    mask = jnp.asarray([[True] * 4, [True, False, True, False]])
    np.testing.assert_array_equal(distance_at_rank(values, mask, 2), [2, 3])
    np.testing.assert_array_equal(distance_at_rank(values, mask, 3), [3, np.inf])
    for columns, last in ((4, 2.0), (2, 1.0)):
        negatives = NegativeDistances(values[:1, :columns], mask[:1, :columns], 4)
        options = {"cutoff": 2, "temperature": 0.5, "weight_temperature": 0.25}
        found = SoftmaxAtK(**options)(f32([1.5]), negatives)
        softmax = sampled_softmax(f32([1.5]), *negatives[:2], 0.5)
        np.testing.assert_allclose(found, softmax / (1 + np.exp((1.5 - last) / 0.25)), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("psl", {"activation": "exp"}, "activation='exp': use one of tanh, atan, relu"),
        ("psl", {"temperature": 0.0}, "temperature=0.0: use more than 0"),
        ("psl", {"scale": 0.25}, "scale=0.25: use the temperature or more"),
        ("softmax_at_k", {"cutoff": 0}, "cutoff=0: use 1 or more"),
        ("softmax_at_k", {"temperature": -1.0}, "temperature=-1.0: use more than 0"),
        ("softmax_at_k", {"weight_temperature": 0.0}, "weight_temperature=0.0: use more than 0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        LOSSES.build(name, options)
    assert str(caught.value) == f"config.loss.{fault}"


SHARING: dict[str, Callable[..., Any]] = {
    "softmax": lambda *x: sampled_softmax(*x, 0.5),
    "sfcml": lambda *x: squared_margin(*x, 0.5),
    "contrastive": lambda *x: contrastive(*x, 0.5, 100.0),
    "softmax_at_k": lambda *x: SoftmaxAtK()(x[0], NegativeDistances(*x[1:], ITEMS)),
}


def test_losses_that_share_negatives_say_so() -> None:
    sharing = [name for name in LOSSES.names() if LOSSES.get(name).shares_negatives]
    assert sorted(SHARING) == sharing


@pytest.mark.parametrize("name", SHARING)
def test_negatives_serve_many_positives(name: str) -> None:
    positives, values = uniform(1, 6, 3), uniform(0, 6, 5)
    mask = np.random.default_rng(0).random((6, 5)) < 0.7
    found = SHARING[name](f32(positives), f32(values)[:, None], jnp.asarray(mask)[:, None])
    arguments = dict(num_items=ITEMS, **numbers_of(LOSSES.build(name, {})))
    for row, column in np.ndindex(6, 3):
        wanted = oracles.loss_of_row(
            name, positives[row, column], values[row], mask[row], **arguments
        )
        np.testing.assert_allclose(found[row, column], wanted[0], rtol=1e-5, atol=1e-6)


def test_gradients_forwards_and_backwards() -> None:
    with jax.enable_x64(True):
        positive, values = jnp.asarray(uniform(0, 5)), jnp.asarray(uniform(1, 5, 3))
        mask = jnp.asarray(np.random.default_rng(2).random((5, 3)) < 0.7)
        assert np.abs(positive[:, None] - values + 0.5).min() > 1e-3

        @jax.jit
        def losses(positive: jax.Array, values: jax.Array) -> Any:
            hinges = triplet_hinge(positive, values, mask, 0.5)
            return hinges, [
                loss(positive, values, mask)
                for name, loss in SHARING.items()
                if not LOSSES.get(name).holds_constant
            ]

        check_grads(losses, (positive, values), 1, ("fwd", "rev"))

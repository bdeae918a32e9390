"""Attention over memory slots and over references, against loops and explicit relations."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from numpy.typing import ArrayLike

from hlr_jax.functional import (
    References,
    attend,
    attention_weights,
    history_attention,
    memory_attention,
)

BETAS = (1.0, 0.5)
MODES = ("fwd", "rev")

# Compiled, because a program of one's own compiles faster than its operations one by one.
weights_of = jax.jit(attention_weights, static_argnames="beta")
relation_of = jax.jit(attend, static_argnames="beta")


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def f32(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


# --- attention over memory slots -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((6,), (6,)), ((3, 6), (3, 6)), ((3, 1, 6), (1, 4, 6)), ((1, 6), (5, 6))],
)
def test_memory_attention_matches_the_oracle(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    x, y, key = normal(0, *x_shape), normal(1, *y_shape), normal(2, 6, 4)
    slots = memory_attention(f32(x), f32(y), f32(key))
    pairs = x * y
    expected = np.empty((*pairs.shape[:-1], 4))
    for index in np.ndindex(pairs.shape[:-1]):
        expected[index] = oracles.memory_attention(pairs[index], key)
    assert_close(slots, expected)
    np.testing.assert_array_equal(slots, memory_attention(f32(y), f32(x), f32(key)))


def test_memory_attention_of_large_logits_is_finite() -> None:
    """Logits up to 1e4, of both signs."""
    x, y, key = jnp.ones((2, 4)), jnp.ones((2, 4)), f32(2500 * np.sign(normal(6, 4, 5)))
    key = key.at[:, 0].set(2500).at[:, 1].set(-2500)

    def first_slot(key: jax.Array) -> jax.Array:
        return memory_attention(x, y, key)[..., 0].sum()

    slots, gradient = jax.jit(jax.value_and_grad(first_slot))(key)
    assert_close(slots, 2)
    assert np.isfinite(gradient).all()


def test_memory_attention_gradients() -> None:
    with jax.enable_x64(True):
        x, y, key = (jnp.asarray(normal(n, *s)) for n, s in enumerate([(3, 1, 4), (2, 4), (4, 5)]))
        check_grads(jax.jit(memory_attention), (x, y[None], key), 1, MODES)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_history_attention_matches_the_oracle(batch: tuple[int, ...]) -> None:
    targets, history, key = normal(0, *batch, 2, 4), normal(1, *batch, 3, 4), normal(2, 4, 5)
    expected = np.empty((*batch, 2, 3, 5))
    for *index, t, p in np.ndindex(expected.shape[:-1]):
        pair = targets[(*index, t)] * history[(*index, p)]
        expected[(*index, t, p)] = oracles.memory_attention(pair, key)
    assert_close(history_attention(f32(targets), f32(history), f32(key)), expected)


# --- attention weights ---------------------------------------------------------------------------


def weights_by_loops(logits: np.ndarray, mask: np.ndarray, beta: float) -> np.ndarray:
    weights = np.zeros(logits.shape)
    for index in np.ndindex(logits.shape[:-1]):
        valid = np.flatnonzero(mask[index])
        if valid.size:
            weights[index][valid] = oracles.smoothed_attention(logits[index][valid].tolist(), beta)
    return weights


@given(
    logits=hnp.arrays(np.float32, (4, 6), elements=st.floats(-20, 20, width=32)),
    mask=hnp.arrays(np.bool_, (4, 6)),
    beta=st.sampled_from(BETAS),
)
def test_attention_weights_match_the_oracle(
    logits: np.ndarray, mask: np.ndarray, beta: float
) -> None:
    weights = np.asarray(weights_of(f32(logits), jnp.asarray(mask), beta))
    expected = weights_by_loops(logits.astype(np.float64), mask, beta)
    assert (weights[~mask] == 0).all()
    for row, expected_row in zip(weights, expected, strict=True):
        assert_close(row, expected_row)


@pytest.mark.parametrize("beta", BETAS)
def test_attention_weights_broadcast_their_mask(beta: float) -> None:
    logits, mask = normal(0, 3, 4, 5), normal(1, 3, 1, 5) > 0
    weights = weights_of(f32(logits), jnp.asarray(mask), beta)
    assert_close(weights, weights_by_loops(logits, np.broadcast_to(mask, logits.shape), beta))


@pytest.mark.parametrize("beta", BETAS)
def test_attention_weights_of_a_fully_masked_row_are_zero_with_zero_gradient(beta: float) -> None:
    logits = f32(normal(0, 2, 4))
    mask = jnp.asarray([[False] * 4, [True, False, True, True]])
    coefficients = f32(normal(1, 2, 4))
    gradient = jax.jit(jax.grad(lambda w: (attention_weights(w, mask, beta) * coefficients).sum()))(
        logits
    )
    np.testing.assert_array_equal(weights_of(logits, mask, beta)[0], 0)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1, 0]) > 0


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_what_stands_at_a_masked_logit_is_irrelevant(junk: float, beta: float) -> None:
    """The mask leaves all, some and none of the places of the three rows."""
    mask = np.array([[True] * 4, [True, False, True, False], [False] * 4])
    clean = f32(np.where(mask, normal(0, 3, 4), 0))
    dirty = f32(np.where(mask, clean, junk))
    coefficients = f32(normal(1, 3, 4))

    def pooled(logits: jax.Array) -> jax.Array:
        return (attention_weights(logits, jnp.asarray(mask), beta) * coefficients).sum()

    np.testing.assert_array_equal(
        weights_of(dirty, jnp.asarray(mask), beta),
        weights_of(clean, jnp.asarray(mask), beta),
    )
    gradient = np.asarray(jax.jit(jax.grad(pooled))(dirty))
    np.testing.assert_array_equal(gradient, jax.jit(jax.grad(pooled))(clean))
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize(
    ("beta", "row"),
    [
        (1.0, [1e4, -1e4, 0.0, 1e4]),
        (1.0, [-1e4, -1e4, -1e4, -1e4 - 1]),
        # A weight is exp((1 - beta) * 1e4) where all logits are large: only negative ones fit.
        (0.5, [-1e4, 30.0, -1e4, 29.0]),
        (0.5, [-1e4, -1e4, -1e4, -1e4]),
    ],
)
def test_attention_weights_of_large_logits_are_finite(beta: float, row: list[float]) -> None:
    logits, mask = f32([row]), jnp.ones((1, 4), bool)
    coefficients = f32(normal(0, 1, 4))
    weights = weights_of(logits, mask, beta)
    gradient = jax.jit(jax.grad(lambda w: (attention_weights(w, mask, beta) * coefficients).sum()))(
        logits
    )
    assert_close(weights, [oracles.smoothed_attention(row, beta)])
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("beta", BETAS)
def test_attention_weights_gradients(beta: float) -> None:
    mask = jnp.asarray([[True] * 4, [True, False, True, False], [False] * 4])
    with jax.enable_x64(True):
        logits = jnp.asarray(normal(0, 3, 4))
        check_grads(jax.jit(lambda w: attention_weights(w, mask, beta)), (logits,), 1, MODES)


# --- attention over references -------------------------------------------------------------------

Group = tuple[np.ndarray, np.ndarray, np.ndarray]


def attend_by_definition(query: np.ndarray, groups: Sequence[Group], beta: float) -> np.ndarray:
    """Every relation is built, then weighed: `w_k = query . r_k`, `r = sum_k a_k r_k`."""
    batch = np.broadcast_shapes(query.shape[:-1], *(slots.shape[:-2] for slots, _, _ in groups))
    batch = np.broadcast_shapes(batch, *(mask.shape[:-1] for _, mask, _ in groups))
    result = np.zeros((*batch, query.shape[-1]))
    queries = np.broadcast_to(query, result.shape)
    for index in np.ndindex(batch):
        relations = []
        for slots, mask, memory in groups:
            valid = np.broadcast_to(mask, (*batch, mask.shape[-1]))[index]
            rows = np.broadcast_to(slots, (*batch, *slots.shape[-2:]))[index]
            relations += [row @ memory for row, counts in zip(rows, valid, strict=True) if counts]
        weights = [float(queries[index] @ relation) for relation in relations]
        result[index] = oracles.attend(queries[index], relations, weights, beta)
    return result


def group(seed: int, batch: tuple[int, ...], references: int, slots: int, dim: int = 6) -> Group:
    """Random references of which about a third is masked."""
    raw = np.exp(normal(seed, *batch, references, slots))
    return (
        raw / raw.sum(axis=-1, keepdims=True),
        np.random.default_rng(seed + 1).random((*batch, references)) < 2 / 3,
        normal(seed + 2, slots, dim),
    )


def as_references(groups: Sequence[Group]) -> list[References]:
    return [References(f32(s), jnp.asarray(m), f32(memory)) for s, m, memory in groups]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("query_batch", "groups"),
    [
        pytest.param((3,), [group(0, (3,), 5, 4)], id="one group"),
        pytest.param((), [group(10, (), 5, 4)], id="no batch axis"),
        pytest.param((3,), [group(20, (3,), 1, 4), group(30, (3,), 5, 4)], id="two memories"),
        pytest.param(
            (3,), [group(40, (3,), 2, 4), group(50, (3,), 3, 7), group(60, (3,), 1, 2)], id="three"
        ),
        pytest.param(
            (3, 1), [group(70, (3, 4), 1, 4), group(80, (1, 4), 5, 4)], id="axes of size 1"
        ),
        pytest.param((3, 4), [group(90, (3, 1), 5, 4), group(95, (3, 4), 2, 4)], id="full query"),
    ],
)
def test_attend_equals_its_definition(
    query_batch: tuple[int, ...], groups: list[Group], beta: float
) -> None:
    query = normal(1, *query_batch, 6)
    actual = relation_of(f32(query), as_references(groups), beta)
    assert_close(actual, attend_by_definition(query, groups, beta))


@given(
    mask=hnp.arrays(np.bool_, (3, 5)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 2.0]),
    beta=st.sampled_from(BETAS),
)
def test_attend_equals_its_definition_under_any_mask(
    mask: np.ndarray, seed: int, scale: float, beta: float
) -> None:
    slots, _, memory = group(seed, (3,), 5, 4)
    query = scale * normal(seed, 3, 6)
    actual = relation_of(f32(query), as_references([(slots, mask, memory)]), beta)
    expected = attend_by_definition(query, [(slots, mask, memory)], beta)
    for row, expected_row in zip(actual, expected, strict=True):
        assert_close(row, expected_row)
    np.testing.assert_array_equal(np.asarray(actual)[~mask.any(axis=1)], 0)


def test_groups_that_share_a_memory_are_one_group() -> None:
    slots, mask, memory = group(0, (3,), 5, 4)
    parts = [(slots[:, :2], mask[:, :2], memory), (slots[:, 2:], mask[:, 2:], memory)]
    query = f32(normal(1, 3, 6))
    assert_close(
        relation_of(query, as_references(parts), 0.5),
        relation_of(query, as_references([(slots, mask, memory)]), 0.5),
    )


@pytest.mark.parametrize("beta", BETAS)
def test_attend_without_a_valid_reference_is_zero_with_zero_gradient(beta: float) -> None:
    groups = [group(0, (2,), 2, 4), group(5, (2,), 3, 4)]
    for _, mask, _ in groups:
        mask[0], mask[1] = False, True
    coefficients = f32(normal(1, 2, 6))

    def pooled(query: jax.Array, slots: list[jax.Array]) -> jax.Array:
        references = [
            r._replace(slots=s) for r, s in zip(as_references(groups), slots, strict=True)
        ]
        return (attend(query, references, beta) * coefficients).sum()

    query, slots = f32(normal(2, 2, 6)), [f32(s) for s, _, _ in groups]
    np.testing.assert_array_equal(relation_of(query, as_references(groups), beta)[0], 0)
    gradients = jax.tree.leaves(jax.jit(jax.grad(pooled, (0, 1)))(query, slots))
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[0], 0)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[1]).max() > 0


@pytest.mark.parametrize("beta", BETAS)
def test_what_stands_at_a_masked_reference_is_irrelevant(beta: float) -> None:
    slots, mask, memory = group(0, (3,), 5, 4)
    mask[:, 0], mask[2] = False, False
    junk = np.where(mask[..., None], slots, 1e6 * normal(1, *slots.shape))
    query, coefficients = f32(normal(2, 3, 6)), f32(normal(3, 3, 6))

    def pooled(query: jax.Array, slots: jax.Array, memory: jax.Array) -> jax.Array:
        relation = attend(query, [References(slots, jnp.asarray(mask), memory)], beta)
        return (relation * coefficients).sum()

    value_and_grad = jax.jit(jax.value_and_grad(pooled, (0, 1, 2)))
    clean = jax.tree.leaves(value_and_grad(query, f32(slots), f32(memory)))
    dirty = jax.tree.leaves(value_and_grad(query, f32(junk), f32(memory)))
    for actual, expected in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert (np.asarray(dirty[2])[~mask] == 0).all()


def test_attend_with_large_logits_is_finite() -> None:
    """Logits of +-1e4: the query picks the one reference that it prefers."""
    slots, memory = jnp.eye(3)[None], f32([[1e2, 0], [-1e2, 0], [0, 1]])
    references = References(slots, jnp.ones((1, 3), bool), memory)

    def pooled(query: jax.Array) -> jax.Array:
        return attend(query, [references])

    query = f32([[1e2, 0]])
    assert_close(jax.jit(pooled)(query), [[1e2, 0]])
    assert np.isfinite(jax.jit(jax.jacobian(pooled))(query)).all()


@pytest.mark.parametrize("beta", BETAS)
def test_attend_gradients(beta: float) -> None:
    shared, own = group(0, (3, 1), 4, 5), group(5, (3, 2), 1, 3)
    shared[1][0] = False  # one row without, one with some, one with all references
    shared[1][1], shared[1][2] = [True, False, True, False], True
    masks = [jnp.asarray(mask) for _, mask, _ in (shared, own)]

    def pooled(query: jax.Array, slots: list[jax.Array], memories: list[jax.Array]) -> jax.Array:
        references = [References(*parts) for parts in zip(slots, masks, memories, strict=True)]
        return attend(query, references, beta)

    with jax.enable_x64(True):
        query = jnp.asarray(normal(1, 3, 1, 6))
        slots = [jnp.asarray(s) for s, _, _ in (shared, own)]
        memories = [jnp.asarray(memory) for _, _, memory in (shared, own)]
        check_grads(jax.jit(pooled), (query, slots, memories), 1, MODES)

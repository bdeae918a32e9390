"""The contract of every model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    DIM,
    ITEMS,
    PLACES,
    USERS,
    WITH_HISTORY,
    Case,
    assert_close,
    compiled_relation,
    compiled_scores,
)
from jaxtyping import Array

from hlr_jax.config import LossConfig
from hlr_jax.models import History, Relation, names
from hlr_jax.models.relation import Histories
from hlr_jax.training import objective
from hlr_jax.training.objective import Params


@pytest.fixture(params=names())
def case(request: pytest.FixtureRequest) -> Case:
    """Each registered model with its default options."""
    return Case(request.param, {})


def random_history(case: Case, *batch: int) -> History | None:
    if not case.model.uses_history:
        return None
    rng = np.random.default_rng(9)
    rows = jnp.asarray(rng.normal(0, 0.4, (*batch, PLACES, DIM)), jnp.float32)
    return History(rows, jnp.asarray(rng.random((*batch, PLACES)) < 0.6))


def random_rows(seed: int, *batch: int, width: int = DIM) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.4, (*batch, width)), jnp.float32)


def users_and_items(case: Case, users: tuple[int, ...], items: tuple[int, ...]) -> Any:
    """Rows as wide as the model reads them."""
    extra = DIM if case.model.uses_neighbours else 0
    return (
        random_rows(0, *users, width=case.model.user_width + extra),
        random_rows(1, *items, width=DIM + extra),
    )


def relation_of(case: Case, user: Array, item: Array, history: History | None) -> Array:
    return compiled_relation(case.model, case.jax_params()["relation"], user, item, history)


def test_contract_relation_broadcasts_its_batch_axes(case: Case) -> None:
    """`[B, 1]` users and histories with `[B, K]` items give the relation of each pair."""
    user, item = users_and_items(case, (2, 1), (2, 3))
    history = random_history(case, 2, 1)
    relation = relation_of(case, user, item, history)
    assert relation.shape == (2, 3, DIM)
    assert relation.dtype == jnp.float32
    for b, k in np.ndindex(2, 3):
        own = None if history is None else History(history.rows[b, 0], history.mask[b, 0])
        np.testing.assert_allclose(
            relation[b, k], relation_of(case, user[b, 0], item[b, k], own), rtol=1e-5, atol=1e-6
        )


def test_contract_jit_and_vmap_change_nothing(case: Case) -> None:
    params = case.jax_params()["relation"]
    user, item = users_and_items(case, (3,), (3,))
    history = random_history(case, 3)

    def relation(user: Array, item: Array, history: History | None) -> Array:
        return compiled_relation(case.model, params, user, item, history)

    expected = relation(user, item, history)
    for actual in (
        jax.jit(relation)(user, item, history),
        jax.jit(jax.vmap(relation))(user, item, history),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_contract_gradients_are_finite(case: Case) -> None:
    """Also with zero vectors, empty histories, and parameters far outside of the ball."""
    batch, config = case.jax_batch(), LossConfig()

    def loss(params: Params) -> Array:
        return objective.loss_of_batch(case.model, config, ITEMS, params, batch)[0]

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    for scale in (0.0, 1.0, 100.0):
        params = jax.tree.map(lambda x, scale=scale: scale * x, case.read_params())
        for x in jax.tree.leaves(value_and_grad(params)):
            assert np.isfinite(x).all()


def test_contract_padding_changes_nothing(case: Case) -> None:
    """The content of padded places of a history, and of padded rows of a batch."""
    params, batch, config = case.read_params(), case.jax_batch(), LossConfig()
    other = batch._replace(
        users=batch.users.at[4].set(3), items=batch.items.at[4].set(jnp.arange(4))
    )
    if batch.history is not None:
        items = jnp.where(batch.history.mask, batch.history.items, 9)
        other = other._replace(history=Histories(items, batch.history.mask))
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda p, b: objective.loss_of_batch(case.model, config, ITEMS, p, b)[0])
    )
    expected, actual = value_and_grad(params, batch), value_and_grad(params, other)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(x, y, 1e-6) if np.any(y) else np.testing.assert_array_equal(x, y)


def test_contract_scores_are_those_of_the_definition(case: Case) -> None:
    """A model's own `scores`, the general one, and the relation pair by pair.

    The histories of all users are larger than the catalogue, those of two users are smaller.
    """
    assert 2 * PLACES < ITEMS < USERS * PLACES
    params, histories = case.read_params(), case.jax_histories(slice(USERS))
    users, items = params["user"], params["item"]

    def scores(users: Array, tile: Array, histories: Histories | None) -> Array:
        return compiled_scores(case.model, params["relation"], users, tile, items, histories)

    history = None
    if histories is not None:
        history = History(items[histories.items][:, None], histories.mask[:, None])
    relation = relation_of(case, users[:, None], items[None], history)
    expected = -case.model.translated(users[:, None], relation, items[None])
    assert expected.shape == (USERS, ITEMS)

    general = jax.jit(functools.partial(case.model.apply, method=Relation.scores))
    variables = {"params": params["relation"]}
    np.testing.assert_allclose(
        general(variables, users, items, items, histories), expected, rtol=1e-5
    )
    np.testing.assert_allclose(scores(users, items, histories), expected, rtol=1e-5)
    two = case.jax_histories(slice(2))
    np.testing.assert_allclose(scores(users[:2], items[3:7], two), expected[:2, 3:7], rtol=1e-5)


def test_contract_distances_to_all_are_those_of_the_definition(case: Case) -> None:
    """And so are their gradients."""
    params, history = case.read_params(), None
    users, items = params["user"][:3], params["item"][jnp.array([4, 8, 6, 0])]
    if case.model.uses_history:
        history = random_history(case, 3)
    weights = random_rows(7, 3, width=4)

    @functools.partial(jax.jit, static_argnums=0)
    def of_rows(of_all: Any, params: Params, users: Array, items: Array) -> tuple[Array, Array]:
        distances = case.model.apply({"params": params}, users, items, history, method=of_all)
        return (distances * weights).sum(), distances

    value_and_grad = jax.value_and_grad(of_rows, (1, 2, 3), has_aux=True)
    arguments = params["relation"], users, items
    (_, expected), gradient = value_and_grad(Relation.distances_to_all, *arguments)
    (_, found), own_gradient = value_and_grad(type(case.model).distances_to_all, *arguments)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for x, y in zip(*map(jax.tree.leaves, (own_gradient, gradient)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_contract_rows_at_padded_places_change_neither_relation_nor_gradient(
    case: Case,
) -> None:
    user, item = users_and_items(case, (4,), (4,))
    history = random_history(case, 4)
    if history is None:
        return
    mask = history.mask.at[0].set(False).at[1].set(True)
    mask = mask.at[2].set(jnp.asarray([True, False, False, True]))
    junk = jnp.where(mask[..., None], history.rows, 1e6 * random_rows(2, 4, PLACES))
    coefficients = random_rows(3, 4)

    def pooled(params: Params, user: Array, item: Array, rows: Array) -> Array:
        relation = compiled_relation(case.model, params, user, item, History(rows, mask))
        return (relation * coefficients).sum()

    value_and_grad = jax.jit(jax.value_and_grad(pooled, (0, 1, 2, 3)))
    params = case.jax_params()["relation"]
    clean = value_and_grad(params, user, item, history.rows)
    dirty = value_and_grad(params, user, item, junk)
    for x, y in zip(jax.tree.leaves(dirty), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (np.asarray(dirty[1][3])[~np.asarray(mask)] == 0).all()


@pytest.mark.parametrize(("name", "options"), WITH_HISTORY)
def test_the_order_of_the_history_is_irrelevant(name: str, options: dict[str, Any]) -> None:
    case = Case(name, options)
    user, item, history = random_rows(0, 4), random_rows(1, 4), random_history(case, 4)
    assert history is not None
    backwards = History(history.rows[:, ::-1], history.mask[:, ::-1])
    np.testing.assert_allclose(
        relation_of(case, user, item, backwards),
        relation_of(case, user, item, history),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_user_alone_as_a_reference_is_lrml() -> None:
    """HLR with an empty history; without the user either, there is no relation."""
    user, item = random_rows(0, 3), random_rows(1, 3)
    empty = History(random_rows(2, 3, PLACES), jnp.zeros((3, PLACES), bool))
    hlr, lrml = Case("hlr", {}), Case("lrml", {})
    np.testing.assert_allclose(
        relation_of(hlr, user, item, empty), relation_of(lrml, user, item, None), rtol=1e-5
    )
    without = Case("hlr", {"include_user": False})
    np.testing.assert_array_equal(relation_of(without, user, item, empty), 0)

"""A user that is where its items are: it needs a history, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import DIM, ITEMS, Case, assert_close

from hlr_jax.models import History
from hlr_jax.models.relation import apply, embed_tables
from hlr_jax.types import HistoryIds, Params


def test_users_have_no_numbers_and_equal_histories_equal_scores() -> None:
    """So a user that was never trained on is ranked for like one that was."""
    case = Case("items_only", {})
    params = case.jax_params()
    assert params["user"].shape[1] == 0
    ids = HistoryIds(jnp.array([[1, 4], [4, 1], [2, 0]]), jnp.array([[1, 1], [1, 1], [1, 0]]) > 0)
    unseen = jnp.zeros((3, 0))
    items = params["item"]
    scores = apply(case.model, params["relation"], "scores", unseen, items, items, ids)
    assert scores.shape == (3, ITEMS)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
    rows, weight = case.params["item"], case.params["weight"]
    assert_close(scores[2], -np.sum((weight * rows[2] - rows) ** 2, axis=1))


@pytest.mark.parametrize("geometry", ["ball", "sphere", "lorentz"])
def test_without_a_history_a_user_is_at_the_origin(geometry: str) -> None:
    """Its gradient is finite there, on the sphere too, where a zero row has no direction."""
    case = Case("items_only", {}, geometry)

    @jax.jit
    def distances(params: Params) -> jax.Array:
        points = embed_tables(case.model, params)
        items = points["item"]
        empty = History(items[None, :2], jnp.zeros((1, 2), bool))
        args = points["user"][:1], items, empty
        found = apply(case.model, params["relation"], "pairwise_distances", *args)
        assert isinstance(found, jax.Array)
        return found[0]

    params = case.jax_params()
    points = [case.geometry.embed(row) for row in case.params["item"]]
    expected = [case.geometry.distance(np.zeros(DIM), point) for point in points]
    assert_close(distances(params), expected)
    gradient = jax.grad(lambda x: jnp.sum(distances(x)))(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))

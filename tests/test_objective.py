"""The gradient in slices, against that of the plain definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from hlr_jax import models
from hlr_jax.config import LossConfig
from hlr_jax.models import relation as base
from hlr_jax.models.relation import Histories
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import objective
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params, TripletRows, row_ids

USERS, ITEMS, DIM, ROWS, NEGATIVES, PLACES = 4, 9, 6, 7, 3, 3


@pytest.fixture(autouse=True)
def slices_as_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a slice is the whole batch; what slices add up to must be the same."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def batch_of(uses_history: bool) -> Batch:
    """Few users and items, so that rows repeat; one row is padding, one history is empty."""
    rng = np.random.default_rng(1)
    items = rng.integers(ITEMS, size=(ROWS, 1 + NEGATIVES), dtype=np.int32)
    items[2, 2] = items[2, 1]
    mask = rng.random((ROWS, PLACES)) < 0.6
    mask[1], mask[3] = False, True
    history = np.where(mask, rng.integers(ITEMS, size=mask.shape), 0)
    weight = np.ones(ROWS)
    weight[4] = 0
    return Batch(
        jnp.asarray(rng.integers(USERS, size=ROWS), jnp.int32),
        jnp.asarray(items),
        Histories(jnp.asarray(history, jnp.int32), jnp.asarray(mask)) if uses_history else None,
        jnp.asarray(weight),
    )


def params_of(model: models.Relation) -> Params:
    """In double precision, and large enough that slot weights and hinges differ."""
    with jax.enable_x64(False):
        params = training.init_params(jax.random.key(2), model, USERS, ITEMS)
    return jax.tree.map(lambda x: jnp.asarray(1.5 * np.asarray(x, np.float64)), params)


def read_by(model: models.Relation, params: Params) -> Params:
    """What the model reads: with means of neighbours, which are constants, if it wants any."""
    rng = np.random.default_rng(4)
    tables = {name: params[name] for name in ("user", "item") if model.uses_neighbours}
    return params | {
        name: jnp.concatenate([table, rng.normal(0, 0.5, table.shape)], axis=1)
        for name, table in tables.items()
    }


def cache_for(rows: int, batch: Batch, user_width: int = DIM, item_width: int = DIM) -> int:
    """A cache that holds so many rows of a batch."""
    places = sum(x[0].size for x in row_ids(batch) if x is not None)
    return 4 * (user_width + (places - 1) * item_width) * rows


# Of 7 rows: one by one, in pairs with one left over, in threes with one left over. All at once
# is a usual step's way, which the models' tests go.
@pytest.mark.parametrize(
    ("copy_relation", "rank_weight", "size"),
    [(False, False, 1), (True, False, 2), (False, True, 3), (True, True, 1)],
)
@pytest.mark.parametrize("name", models.names())
def test_the_gradient_in_slices_is_the_gradient(
    name, copy_relation, rank_weight, size, monkeypatch
):
    loss = LossConfig(margin=0.7, copy_relation=copy_relation, rank_weight=rank_weight)
    model = models.build(name, DIM, {"slots": 4} if "slots" in base.options(base.get(name)) else {})

    def gradients(params: Params, batch: Batch) -> tuple[tuple, tuple]:
        """By definition, and in slices."""
        read = functools.partial(read_by, model)

        def hinge(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            values = objective.loss_of_batch(model, loss, ITEMS, read(params), batch)
            return values[0], values

        widths = [read(params)[name].shape[1] for name in ("user", "item")]
        monkeypatch.setattr(objective, "CACHE_BYTES", cache_for(size, batch, *widths))
        assert objective.slice_size(batch, *widths) == size
        zeros = jax.tree.map(jnp.zeros_like, params)
        found = objective.loss_gradient(model, loss, read(params), batch, row_ids(batch), zeros)
        return jax.grad(hinge, has_aux=True)(params), found

    with jax.enable_x64(True):
        expected, found = jax.jit(gradients)(params_of(model), batch_of(model.uses_history))
        hinge, triplets = expected[1]
        assert hinge > 0
        assert triplets == (ROWS - 1) * (1 if rank_weight else NEGATIVES)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11), found, expected
        )


def test_gradients_are_added_where_the_places_say():
    """Users last to first, all other items into one row; added to what is there already."""
    model, loss = models.build("cml", DIM, {}), LossConfig(margin=5.0)
    with jax.enable_x64(True):
        batch, params = batch_of(False), params_of(model)
        zeros = jax.tree.map(jnp.zeros_like, params)
        gradient, _ = objective.loss_gradient(model, loss, params, batch, row_ids(batch), zeros)
        places = TripletRows(USERS - 1 - batch.users, jnp.zeros_like(batch.items), None)
        start = {"user": jnp.ones((USERS, DIM)), "item": jnp.ones((1, DIM)), "relation": {}}
        moved, _ = objective.loss_gradient(model, loss, params, batch, places, start)
    gradient, moved = jax.tree.map(np.asarray, (gradient, moved))
    np.testing.assert_allclose(moved["user"], 1 + gradient["user"][::-1], rtol=1e-10)
    np.testing.assert_allclose(moved["item"][0], 1 + gradient["item"].sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize(
    ("fits", "size"), [(0.5, 1), (1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (7, 7), (1000, 7)]
)
def test_slices_are_equal_and_fit_in_the_cache(fits, size, monkeypatch):
    for uses_history in (False, True):
        batch = batch_of(uses_history)
        monkeypatch.setattr(objective, "CACHE_BYTES", int(cache_for(1, batch) * fits))
        assert objective.slice_size(batch, DIM, DIM) == size


def test_only_a_cpu_needs_slices(monkeypatch):
    monkeypatch.setattr(objective, "CACHE_BYTES", 1)
    assert objective.slice_size(batch_of(True), DIM, DIM) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert objective.slice_size(batch_of(True), DIM, DIM) == ROWS


# --- with a pool ----------------------------------------------------------------------------------


def pool_batch_of(uses_history: bool) -> Batch:
    """Of `batch_of`, whose rows share a pool with repetitions, and hide different parts of it."""
    batch, rng = batch_of(uses_history), np.random.default_rng(5)
    pool = rng.integers(ITEMS, size=6).astype(np.int32)
    pool[4] = pool[1]
    unseen = rng.random((ROWS, 6)) < 0.7
    unseen[5] = False
    weight = batch.weight * jnp.asarray(rng.uniform(0.2, 1, ROWS))
    return batch._replace(
        items=batch.items[:, :1], weight=weight, pool=jnp.asarray(pool), unseen=jnp.asarray(unseen)
    )


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"name": "softmax"}, 3),
        ({"copy_relation": True, "rank_weight": True}, 2),
    ],
)
@pytest.mark.parametrize("name", models.names())
def test_the_gradient_in_slices_that_share_a_pool_is_the_gradient(name, changes, size, monkeypatch):
    """Also of the negatives that all slices share, and none of it is NaN."""
    loss = LossConfig(margin=0.7, **changes)
    model = models.build(name, DIM, {"slots": 4} if "slots" in base.options(base.get(name)) else {})
    monkeypatch.setattr(objective, "CACHE_BYTES", 1)
    monkeypatch.setattr(objective, "POOL_SLICE", size)

    def gradients(params: Params, batch: Batch) -> tuple[tuple, tuple]:
        """By definition, and in slices."""
        read = functools.partial(read_by, model)

        def total(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            values = objective.loss_of_batch(model, loss, ITEMS, read(params), batch)
            return values[0], values

        zeros = jax.tree.map(jnp.zeros_like, params)
        found = objective.loss_gradient(model, loss, read(params), batch, row_ids(batch), zeros)
        return jax.grad(total, has_aux=True)(params), found

    with jax.enable_x64(True):
        batch = pool_batch_of(model.uses_history)
        expected, found = jax.jit(gradients)(params_of(model), batch)
        expected, found = jax.tree.map(np.asarray, (expected, found))
    assert expected[1][0] > 0
    np.testing.assert_allclose(expected[1][1], np.asarray(batch.weight).sum(), rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11), found, expected
    )


@pytest.mark.parametrize(("form", "of_oracle"), [("off_diagonal", "sum"), ("log_det", "log_det")])
def test_the_covariance_s_gradient_is_the_oracle_s(form: str, of_oracle: str) -> None:
    """Of all rows; a user has two vectors, as DPCML's."""
    rng = np.random.default_rng(5)
    tables = {"user": rng.normal(size=(5, 6)), "item": rng.normal(size=(7, 3))}

    def penalty(tables: Params) -> float:
        rows = np.vstack([tables["item"], tables["user"].reshape(10, 3)])
        return 0.3 * oracles.covariance_penalty(rows, of_oracle)

    config = LossConfig(covariance=0.3, covariance_form=form)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, tables)
        found = jax.jit(functools.partial(objective.covariance_gradient, config))(params)
    for name, expected in oracles.numerical_gradient(penalty, tables).items():
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[name], expected, atol=1e-7)

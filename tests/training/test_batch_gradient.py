"""The gradient in slices, against that of the plain definition; and the gradients of penalties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.geometry.sphere import Sphere
from hlr_jax.functional.losses.hinge import Hinge, Warp
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.kernels import sizes
from hlr_jax.models.cml import CML
from hlr_jax.models.dpcml import DPCML
from hlr_jax.models.history_mean import HistoryMean
from hlr_jax.models.registry import RELATIONS
from hlr_jax.models.relation import Relation
from hlr_jax.training import rows
from hlr_jax.training.objective import Covariance, Objective, Uniformity, completed_gradient
from hlr_jax.training.rows import batch_gradient, loss_of_batch
from hlr_jax.training.state import Sizes, init_params
from hlr_jax.types import (
    HistoryIds,
    Params,
    PerExampleNegatives,
    RowIds,
    SharedNegatives,
    TripletBatch,
)

USERS, ITEMS, DIM, ROWS, NEGATIVES, PLACES = 4, 9, 6, 7, 3, 3


@pytest.fixture(autouse=True)
def slices_as_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a slice is the whole batch; what slices add up to must be the same."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def batch_of(uses_history: bool) -> TripletBatch:
    """Few users and items, so that rows repeat; one row is padding, one history is empty."""
    rng = np.random.default_rng(1)
    items = rng.integers(ITEMS, size=(ROWS, 1 + NEGATIVES), dtype=np.int32)
    items[2, 2] = items[2, 1]
    mask = rng.random((ROWS, PLACES)) < 0.6
    mask[1], mask[3] = False, True
    history = np.where(mask, rng.integers(ITEMS, size=mask.shape), 0)
    weight = np.ones(ROWS)
    weight[4] = 0
    negatives = PerExampleNegatives(jnp.asarray(items[:, 1:]), jnp.ones((ROWS, NEGATIVES), bool))
    histories = HistoryIds(jnp.asarray(history, jnp.int32), jnp.asarray(mask))
    return TripletBatch(
        jnp.asarray(rng.integers(USERS, size=ROWS), jnp.int32),
        jnp.asarray(items[:, 0]),
        negatives,
        histories if uses_history else HistoryIds.empty(ROWS),
        jnp.asarray(weight),
    )


def shared_batch_of(uses_history: bool) -> TripletBatch:
    """The same with negatives that rows share, some twice, and each row hides others of them."""
    batch, rng = batch_of(uses_history), np.random.default_rng(5)
    items = rng.integers(ITEMS, size=6).astype(np.int32)
    items[4] = items[1]
    unseen = rng.random((ROWS, 6)) < 0.7
    unseen[5] = False
    weight = batch.weight * jnp.asarray(rng.uniform(0.2, 1, ROWS))
    shared = SharedNegatives(jnp.asarray(items), jnp.asarray(unseen))
    return batch._replace(negatives=shared, weight=weight)


def model_of(name: str) -> Relation:
    return RELATIONS.build(
        name, {"slots": 4} if "slots" in RELATIONS.options(name) else {}, dim=DIM
    )


new_params = jax.jit(lambda key, model: init_params(key, model, Sizes(USERS, ITEMS)))


def params_of(model: Relation) -> Params:
    """In double precision, and large enough that slot weights and hinges differ."""
    with jax.enable_x64(False):
        params = new_params(jax.random.key(2), model)
    return jax.tree.map(lambda x: jnp.asarray(1.5 * np.asarray(x, np.float64)), params)


def read_by(model: Relation, params: Params) -> Params:
    """What the model reads: with means of neighbours, which are constants, if it wants any."""
    rng = np.random.default_rng(4)
    tables = {name: params[name] for name in ("user", "item") if model.uses_neighbours}
    return params | {
        name: jnp.concatenate([table, rng.normal(0, 0.5, table.shape)], axis=1)
        for name, table in tables.items()
    }


def assert_slices_give_the_gradient(objective: Objective, batch: TripletBatch) -> tuple:
    """Compare gradient and values with those of the definition; none is NaN. Return the values."""
    read = functools.partial(read_by, objective.model)

    @jax.jit
    def both(params: Params, batch: TripletBatch) -> tuple[tuple, tuple]:
        def total(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            values = loss_of_batch(objective, read(params), batch)
            return values[0], values

        zeros = jax.tree.map(jnp.zeros_like, params)
        found = batch_gradient(objective, read(params), batch, batch.row_ids(), zeros)
        return jax.grad(total, has_aux=True)(params), found

    expected, found = jax.tree.map(np.asarray, both(params_of(objective.model), batch))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11), found, expected
    )
    assert expected[1][0] > 0
    return expected[1]


# Of 7 rows: in pairs with one left over, in threes with one left over, one by one. All at once
# is a usual step's way, which the models' tests go.
@pytest.mark.parametrize(
    ("name", "copy_relation", "loss", "size"),
    [
        *((name, False, Hinge(0.7), 2) for name in RELATIONS.names()),
        *((name, True, Warp(0.7), 3) for name in RELATIONS.names()),
        ("hlr", True, Hinge(0.7), 1),
        ("hlr", False, Warp(0.7), 1),
    ],
)
def test_the_gradient_in_slices_is_the_gradient(name, copy_relation, loss, size, monkeypatch):
    monkeypatch.setattr(rows, "_slice_size", lambda batch, params: size)
    model = model_of(name)
    objective = Objective(model, loss, num_items=ITEMS, copy_relation=copy_relation)
    with jax.enable_x64(True):
        _, terms = assert_slices_give_the_gradient(objective, batch_of(model.uses_history))
    assert terms == (ROWS - 1) * (NEGATIVES if type(loss) is Hinge else 1)


@pytest.mark.parametrize(
    ("name", "copy_relation", "loss", "size"),
    [
        *((name, False, Softmax(0.5), 3) for name in RELATIONS.names()),
        *((name, True, Warp(0.7), 2) for name in ("cml", "hlr", "dpcml", "transcf")),
    ],
)
def test_the_gradient_in_slices_that_share_negatives_is_the_gradient(
    name, copy_relation, loss, size, monkeypatch
):
    """Also of the negatives that all slices share."""
    monkeypatch.setattr(rows, "_slice_size", lambda batch, params: size)
    model = model_of(name)
    objective = Objective(model, loss, num_items=ITEMS, copy_relation=copy_relation)
    with jax.enable_x64(True):
        batch = shared_batch_of(model.uses_history)
        _, terms = assert_slices_give_the_gradient(objective, batch)
        np.testing.assert_allclose(terms, np.asarray(batch.weight).sum(), rtol=1e-6)


def test_gradients_are_added_where_the_places_say():
    """Users last to first, all other items into one row; added to what is there already."""
    objective = Objective(CML(DIM), Hinge(5.0), num_items=ITEMS)
    gradient_of = jax.jit(functools.partial(batch_gradient, objective))
    with jax.enable_x64(True):
        batch, params = batch_of(False), params_of(objective.model)
        ids = batch.row_ids()
        zeros = jax.tree.map(jnp.zeros_like, params)
        gradient, _ = gradient_of(params, batch, ids, zeros)
        places = ids._replace(user=USERS - 1 - batch.users, items=jnp.zeros_like(ids.items))
        start = {"user": jnp.ones((USERS, DIM)), "item": jnp.ones((1, DIM)), "relation": {}}
        moved, _ = gradient_of(params, batch, places, start)
    gradient, moved = jax.tree.map(np.asarray, (gradient, moved))
    np.testing.assert_allclose(moved["user"], 1 + gradient["user"][::-1], rtol=1e-10)
    np.testing.assert_allclose(moved["item"][0], 1 + gradient["item"].sum(axis=0), rtol=1e-10)


# --- how many rows are a slice -------------------------------------------------------------------


def bytes_of_row(ids: RowIds) -> int:
    """Of the embedding rows that a row of a batch reads for itself."""
    return 4 * DIM * (1 + ids.items.shape[1] + ids.history.shape[1])


TABLES = {"user": np.zeros((USERS, DIM)), "item": np.zeros((ITEMS, DIM))}


@pytest.mark.parametrize(
    ("fits", "size"), [(0.5, 1), (1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (7, 7), (1000, 7)]
)
def test_slices_are_equal_and_fit_in_the_cache(fits, size, monkeypatch):
    for uses_history in (False, True):
        batch = batch_of(uses_history)
        monkeypatch.setattr(sizes, "_SLICE_BYTES", int(bytes_of_row(batch.row_ids()) * fits))
        assert rows._slice_size(batch, TABLES) == size


def test_slices_that_share_negatives_have_more_rows(monkeypatch):
    monkeypatch.setattr(sizes, "_SLICE_BYTES", 1)
    for most, size in ((3, 3), (4, 4), (6, 4), (128, 7)):
        monkeypatch.setattr(sizes, "_SHARED_SLICE", most)
        assert rows._slice_size(shared_batch_of(True), TABLES) == size


def test_only_a_cpu_needs_slices(monkeypatch):
    monkeypatch.setattr(sizes, "_SLICE_BYTES", 1)
    assert rows._slice_size(batch_of(True), TABLES) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rows._slice_size(batch_of(True), TABLES) == ROWS


# --- penalties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "of_oracle"), [("off_diagonal", "sum"), ("log_det", "log_det")])
def test_the_covariance_s_gradient_is_the_oracle_s(form: str, of_oracle: str) -> None:
    """Of all rows; a user has two vectors, as DPCML's. It is added once, after the reduction."""
    rng = np.random.default_rng(5)
    tables = {"user": rng.normal(size=(5, 6)), "item": rng.normal(size=(7, 3))}

    def penalty(tables: Params) -> float:
        rows = np.vstack([tables["item"], tables["user"].reshape(10, 3)])
        return 0.3 * oracles.covariance_penalty(rows, of_oracle)

    objective = Objective(
        DPCML(3, vectors=2), Hinge(), (Covariance(0.3, form),), num_items=7, reduction="mean"
    )
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, {**tables, "relation": {}})
        of_loss = jax.tree.map(jnp.ones_like, params)
        complete = jax.jit(functools.partial(completed_gradient, objective))
        found = complete(of_loss, jnp.asarray(4.0), params, jnp.asarray(0))
    for name, expected in oracles.numerical_gradient(penalty, tables).items():
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[name], 1 / 4 + expected, atol=1e-7)


KEY_DATA = np.asarray(jax.random.key_data(jax.random.key(6)))


def gradient_of(penalty: Uniformity, model: Relation, tables: Params, step: int = 0) -> Params:
    """What the penalty adds to a gradient, in double precision."""
    objective = Objective(model, Hinge(), (penalty,), num_items=len(tables["item"]))
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, {**tables, "relation": {}})
        zeros = jax.tree.map(jnp.zeros_like, params)
        complete = jax.jit(functools.partial(completed_gradient, objective))
        return complete(zeros, jnp.asarray(4.0), params, jnp.asarray(step))


@pytest.mark.parametrize(
    ("geometry", "oracle"),
    [
        (Ball(1.0), oracles.Ball()),
        (Sphere(0.7), oracles.Sphere(0.7)),
        (Lorentz(0.5), oracles.Lorentz(0.5)),
    ],
    ids=["ball", "sphere", "lorentz"],
)
def test_the_uniformity_s_gradient_is_the_oracle_s(
    geometry: Geometry, oracle: oracles.Geometry
) -> None:
    """Of the points of all users, each with two vectors, and of all items."""
    rng = np.random.default_rng(5)
    tables = {"user": 0.5 * rng.normal(size=(5, 6)), "item": 0.5 * rng.normal(size=(7, 3))}

    def penalty(tables: Params) -> float:
        vectors = tables["user"].reshape(10, 3), tables["item"]
        points = (np.stack([oracle.embed(row) for row in rows]) for rows in vectors)
        return 0.3 / 2 * sum(oracles.uniformity(x, oracle) for x in points)

    model = DPCML(3, geometry, vectors=2)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, {**tables, "relation": {}})
        value = Uniformity(0.3, KEY_DATA)(model, params, jnp.asarray(0))
    np.testing.assert_allclose(value, penalty(tables), rtol=1e-9)
    found = gradient_of(Uniformity(0.3, KEY_DATA), model, tables)
    for name, expected in oracles.numerical_gradient(penalty, tables).items():
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[name], expected, atol=1e-7)


def test_each_step_takes_other_rows_of_large_tables() -> None:
    """So many different ones, and of these the gradient is the oracle's."""
    rng = np.random.default_rng(6)
    tables = {"user": 0.5 * rng.normal(size=(30, 3)), "item": 0.5 * rng.normal(size=(9, 3))}
    penalty, model = Uniformity(0.3, KEY_DATA, most=8), CML(3)
    drawn: dict[str, list[tuple[int, ...]]] = {"user": [], "item": []}
    for step in range(12):
        found = gradient_of(penalty, model, tables, step)
        for name, table in tables.items():
            rows = np.flatnonzero(np.abs(found[name]).max(axis=1))
            assert len(rows) == 8
            drawn[name].append(tuple(rows))

            def of_rows(part: Params) -> float:
                return 0.15 * oracles.uniformity(part["rows"])

            expected = oracles.numerical_gradient(of_rows, {"rows": table[rows]})
            np.testing.assert_allclose(found[name][rows], expected["rows"], atol=1e-7)
    assert len(set(drawn["user"])) == 12
    assert set().union(*drawn["user"]) == set(range(30))
    assert len(set(drawn["item"])) > 3
    again = gradient_of(penalty, model, tables, 11)
    np.testing.assert_array_equal(found["user"], again["user"])


def test_a_model_without_rows_of_users_spreads_items_alone() -> None:
    tables = {"user": np.zeros((5, 0)), "item": np.random.default_rng(7).normal(size=(7, 3))}
    found = gradient_of(Uniformity(0.3, KEY_DATA), HistoryMean(3), tables)

    def penalty(tables: Params) -> float:
        return 0.15 * oracles.uniformity(tables["item"])

    expected = oracles.numerical_gradient(penalty, {"item": tables["item"]})
    np.testing.assert_allclose(found["item"], expected["item"], atol=1e-7)

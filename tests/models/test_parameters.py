"""Parameters of models: which there are, how they start, and how they are bounded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from support.cases import DIM, SLOTS, Case, Setting, as_oracle_params, assert_close, shapes_of

from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS, History, Relation
from hlr_jax.models.relation import apply
from hlr_jax.testing.expect import with_option
from hlr_jax.training.exchange import DenseExchange
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.objective import Objective, project
from hlr_jax.training.optimizers import GivenOptimizer
from hlr_jax.training.state import Sizes, TrainState, init_params
from hlr_jax.training.step import train_step


def build(name: str, **options: Any) -> Relation:
    return RELATIONS.build(name, options, dim=DIM)


@pytest.mark.parametrize(
    ("clip_memory", "clip_key"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.5), (0.5, 1.0)]
)
def test_projection_bounds_memory_slots_and_key_features(
    clip_memory: float, clip_key: float
) -> None:
    """A memory is bounded slot by slot, a key `[d, M]` feature by feature: both row by row."""
    options = {"clip_memory": clip_memory, "clip_key": clip_key, "separate_user_memory": True}
    case = Case("hlr", options)
    params = case.jax_params()["relation"]
    assert sorted(params) == ["key", "memory", "user_key", "user_memory"]
    projected = case.model.project(params)
    assert projected.keys() == params.keys()
    for key, x in params.items():
        assert x.shape == ((DIM, SLOTS) if key.endswith("key") else (SLOTS, DIM))
        radius = clip_key if key.endswith("key") else clip_memory
        if radius:
            assert np.linalg.norm(x, axis=1).max() > radius > np.linalg.norm(x, axis=1).min() / 4
            assert_close(projected[key], oracles.project(x, radius))
        else:
            np.testing.assert_array_equal(projected[key], x)


@pytest.mark.parametrize("geometry", ["ball", "sphere", "lorentz"])
def test_tables_are_kept_where_the_geometry_wants_them(geometry: str) -> None:
    """Of several vectors in a user's row each one; a frozen table stays."""
    case = Case("dpcml", {"vectors": 2}, geometry)
    params = jax.tree.map(lambda x: 3 * x, case.jax_params())
    own = as_oracle_params(params)
    for frozen in ((), ("user",)):
        found = project(Objective(case.model, Hinge(), frozen=frozen), params)
        user = case.geometry.project(own["user"].reshape(-1, DIM)).reshape(own["user"].shape)
        assert_close(found["user"], own["user"] if frozen else user)
        assert_close(found["item"], case.geometry.project(own["item"]))
        assert (geometry == "sphere") == np.array_equal(found["item"], params["item"])


def test_a_step_projects_what_the_options_ask_for() -> None:
    """A step of gradient descent, against the oracle's gradient and projections."""
    case, setting = Case("lrml", {"clip_memory": 0.4}), Setting(Hinge(0.5))
    objective = setting.objective(with_option(case.model, "geometry", Ball(0.3)))
    optimizer = GivenOptimizer(optax.sgd(0.1), ())
    state = TrainState.of(case.jax_params(), optimizer)
    arguments = case.jax_batch(), objective, optimizer, DenseExchange(), NoNeighbours()
    after = jax.jit(train_step)(state, *arguments)[0].params
    gradient = oracles.numerical_gradient(lambda p: case.loss(p, setting), case.params)
    radii = {"user": 0.3, "item": 0.3, "memory": 0.4, "key": np.inf}
    for key, x in as_oracle_params(after).items():
        moved = case.params[key] - 0.1 * gradient[key]
        assert_close(x, oracles.project(moved, radii[key]))


@pytest.mark.parametrize("name", RELATIONS.names())
def test_everything_starts_from_a_normal_of_one_over_the_root_of_d(name: str) -> None:
    """Sums of some 10^4 draws: mean and deviation are known to a few percent at 5 sigma."""
    dim = 64
    many = {option: 200 for option in ("slots", "rank") if option in RELATIONS.options(name)}
    model = RELATIONS.build(name, many, dim=dim)
    params = jax.jit(lambda key: init_params(key, model, Sizes(200, 300)))(jax.random.key(1))
    tables = as_oracle_params(params)
    assert (tables["user"].shape, tables["item"].shape) == ((200, model.user_width), (300, dim))
    drawn = {key: x for key, x in tables.items() if x.ndim and x.size}
    for key, x in drawn.items():
        deviation = dim**-0.5
        assert abs(x.mean()) < 5 * deviation / np.sqrt(x.size), key
        assert abs(x.std() / deviation - 1) < 5 / np.sqrt(2 * x.size), key
        assert abs((x**4).mean() / deviation**4 - 3) < 5 * np.sqrt(96 / x.size), key
    firsts = [x.flat[0] for x in drawn.values()]
    assert len(set(firsts)) == len(firsts), "two tables start from the same draws"


def test_options_decide_which_parameters_there_are() -> None:
    def shapes(name: str, **options: Any) -> dict[str, tuple[int, ...]]:
        return shapes_of(build(name, **options))

    shared = {"key": (DIM, 20), "memory": (20, DIM)}
    for name in ("cml", "cmlf", "adacml", "transcf", "dpcml", "history_mean"):
        assert shapes(name) == {}
    assert shapes("lrml") == shapes("hlr") == shapes("hlrpp") == shapes("multi_head") == shared
    assert shapes("items_only") == {"weight": ()}
    assert shapes("nearest_items") == {"logit": (), "log_temperature": ()}
    assert shapes("recent_items") == {"weight": (), "logit": ()}
    assert shapes("rotation") == {"key": (DIM, 8), "angles": (8, DIM // 2)}
    own = {"user_key": (DIM, 7), "user_memory": (7, DIM)}
    assert shapes("hlr", slots=7, separate_user_memory=True) == {
        "key": (DIM, 7),
        "memory": (7, DIM),
        **own,
    }


def test_the_user_alone_as_a_reference_is_lrml() -> None:
    """HLR with an empty history; without the user either, there is no relation."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(0, 0.4, (3, 6, DIM)), jnp.float32)
    user, item = rows[:, 0], rows[:, 1]
    masked = History(rows[:, 2:], jnp.zeros((3, 4), bool))

    def relation(name: str, history: History, **options: Any) -> Any:
        case = Case(name, options)
        return apply(case.model, case.jax_params()["relation"], "__call__", user, item, history)

    lrml = relation("lrml", History.empty(user))
    for empty in (masked, History.empty(user)):
        np.testing.assert_allclose(relation("hlr", empty), lrml, rtol=1e-5)
        np.testing.assert_array_equal(relation("hlr", empty, include_user=False), 0)


@pytest.mark.parametrize("name", ["hlr", "hlrpp", "adacml", "history_mean", "nearest_items"])
def test_the_order_of_the_history_is_irrelevant(name: str) -> None:

    case, rng = Case(name, {}), np.random.default_rng(9)
    rows = jnp.asarray(rng.normal(0, 0.4, (4, 6, DIM)), jnp.float32)
    mask = jnp.asarray(rng.random((4, 4)) < 0.6)

    @jax.jit
    def relation(history: History) -> Any:
        own = case.jax_params()["relation"]
        return apply(case.model, own, "__call__", rows[:, 0], rows[:, 1], history)

    forwards = relation(History(rows[:, 2:], mask))
    backwards = relation(History(rows[:, :1:-1], mask[:, ::-1]))
    np.testing.assert_allclose(backwards, forwards, rtol=1e-5, atol=1e-6)


def test_a_decay_of_almost_nothing_has_gradients() -> None:
    case = Case("recent_items", {})
    rows, mask = jnp.ones((1, 3, DIM)), jnp.asarray([[False, True, True]])

    @jax.jit
    def total(own: dict[str, jax.Array]) -> jax.Array:
        user = item = jnp.zeros((1, DIM))
        return jnp.sum(apply(case.model, own, "__call__", user, item, History(rows, mask)))

    for logit in (-120.0, -50.0, 0.0, 50.0):
        own = {"weight": jnp.asarray(2.0), "logit": jnp.asarray(logit)}
        value, gradient = jax.value_and_grad(total)(own)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(x) for x in gradient.values())

"""Every model against the oracle with each of its options, and its own parameters."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import oracles
import pytest
from cases import (
    CHOICES,
    DIM,
    ITEMS,
    NOT_IN_RELATION,
    SLOTS,
    VARIANTS,
    Case,
    as_oracle_params,
    assert_close,
    compiled_scores,
    gradient_of_step,
    shapes_of,
)

from hlr_jax.config import Config, LossConfig, ModelConfig, OptimizerConfig
from hlr_jax.models import build, names
from hlr_jax.models import relation as base
from hlr_jax.training import objective, optimizers
from hlr_jax.training import step as training
from hlr_jax.training.step import TrainState

# --- the oracle ----------------------------------------------------------------------------------


def test_no_model_of_the_library_is_left_out() -> None:
    configs = pathlib.Path(__file__).parents[2] / "configs"
    assert {path.stem for path in configs.glob("*/*.py")} == set(CHOICES)


@pytest.mark.parametrize("name", CHOICES)
def test_every_option_is_tested(name: str) -> None:
    assert set(base.options(base.get(name))) - NOT_IN_RELATION == set(CHOICES[name])


@pytest.mark.parametrize("copy_relation", [False, True], ids=["own", "copied"])
@pytest.mark.parametrize("num_negatives", [1, 3])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_distances_and_loss_match_the_oracle(
    name: str, options: dict[str, Any], num_negatives: int, copy_relation: bool
) -> None:
    case = Case(name, options, num_negatives)
    params, batch = case.read_params(), case.jax_batch()
    distances = objective.triplet_distances(case.model, copy_relation, params, batch)
    np.testing.assert_allclose(distances, case.distances(copy_relation), rtol=1e-5)
    for rank_weight in (False, True):
        loss = LossConfig(copy_relation=copy_relation, rank_weight=rank_weight)
        total, triplets = objective.loss_of_batch(case.model, loss, ITEMS, params, batch)
        assert triplets == 4 * (1 if rank_weight else num_negatives)
        np.testing.assert_allclose(total, case.loss(case.params, loss), rtol=1e-5)
        mean = LossConfig(copy_relation=copy_relation, rank_weight=rank_weight, reduction="mean")
        np.testing.assert_allclose(total / triplets, case.loss(case.params, mean), rtol=1e-5)


# Each pair of values of the three options of the loss is among these.
SETTINGS = {
    "1-own": [
        LossConfig(reduction="sum", rank_weight=False, covariance=0.0),
        LossConfig(reduction="mean", rank_weight=True, covariance=0.0),
    ],
    "3-copied": [
        LossConfig(reduction="sum", rank_weight=True, covariance=0.7, copy_relation=True),
        LossConfig(reduction="mean", rank_weight=False, covariance=0.7, copy_relation=True),
    ],
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_gradient_matches_the_oracle_along_random_directions(
    name: str, options: dict[str, Any], setting: str
) -> None:
    """Double precision, because the oracle's differences are; each loss in two directions."""
    case = Case(name, options, num_negatives=int(setting[0]))
    directions = [
        {key: np.random.default_rng(n).normal(size=x.shape) for key, x in case.params.items()}
        for n in range(2)
    ]
    for loss in SETTINGS[setting]:
        case.check_hinges(loss)

        def along(t: Mapping[str, np.ndarray], loss: LossConfig = loss) -> float:
            moved = {
                key: x + sum(t["t"][n] * v[key] for n, v in enumerate(directions))
                for key, x in case.params.items()
            }
            return case.loss(moved, loss)

        expected = oracles.numerical_gradient(along, {"t": np.zeros(2)})["t"]
        with jax.enable_x64(True):
            gradient = gradient_of_step(case, loss)
        actual = [sum((gradient[key] * v[key]).sum() for key in gradient) for v in directions]
        assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_gradient_matches_the_oracle_in_every_entry(name: str, options: dict[str, Any]) -> None:
    case, loss = Case(name, options), LossConfig()
    case.check_hinges(loss)
    expected = oracles.numerical_gradient(lambda params: case.loss(params, loss), case.params)
    with jax.enable_x64(True):
        gradient = gradient_of_step(case, loss)
    for key, table in expected.items():
        np.testing.assert_allclose(gradient[key], table, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_scores_match_the_oracle(name: str, options: dict[str, Any]) -> None:
    case = Case(name, options)
    params, histories = case.read_params(), case.jax_histories()
    neighbours = {f"{kind}_neighbours": means for kind, means in case.neighbours.items()}
    expected = oracles.rank_scores(
        case.params, case.users.tolist(), case.history.tolist(), name, options | neighbours
    )
    users, items = params["user"][case.users], params["item"]
    scores = compiled_scores(case.model, params["relation"], users, items, items, histories)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_some_translated_users_are_brought_back_into_the_ball_and_some_are_not() -> None:
    """Or the tests of history_mean would say little; of an empty history the mean is zero."""
    case = Case("history_mean", {"clip_translated": 100.0})
    moved = []
    for user, ids in zip(case.users, case.history, strict=True):
        row, history = case.params["user"][user], [case.params["item"][i] for i in ids if i >= 0]
        moved.append(row + oracles.history_mean_relation(row, history, 1.0, 100.0))
    norms = np.linalg.norm(moved, axis=1)
    assert norms.min() < 0.99 < 1.01 < norms[2] < norms.max() < 3
    np.testing.assert_array_equal(moved[2], case.params["user"][case.users[2]])


# --- a model's own parameters --------------------------------------------------------------------


@pytest.mark.parametrize("clip_key", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("clip_memory", [0.0, 1.0, 0.5])
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


def test_a_step_projects_what_the_options_ask_for() -> None:
    case = Case("lrml", {"clip_memory": 0.4})
    config = Config(
        model=ModelConfig(clip_norm=0.3),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
    )
    optimizer = optimizers.build(config.optimizer, config.training, 1)
    state = TrainState.of(case.jax_params(), optimizer)
    step = jax.jit(lambda s, b: training.train_step(s, b, case.model, optimizer, config)[0])
    after = step(state, case.jax_batch()).params
    gradient = oracles.numerical_gradient(lambda p: case.loss(p, config.loss), case.params)
    radii = {"user": 0.3, "item": 0.3, "memory": 0.4, "key": np.inf}
    for key, x in as_oracle_params(after).items():
        moved = case.params[key] - 0.1 * gradient[key]
        assert_close(x, oracles.project(moved, radii[key]))


@pytest.mark.parametrize("name", names())
def test_everything_starts_from_a_normal_of_one_over_the_root_of_d(name: str) -> None:
    """Sums of some 10^4 draws: mean and deviation are known to a few percent at 5 sigma."""
    dim = 64
    slots = {"slots": 200} if "slots" in base.options(base.get(name)) else {}
    model = build(name, dim, slots)
    params = jax.jit(lambda key: training.init_params(key, model, 200, 300))(jax.random.key(1))
    tables = as_oracle_params(params)
    assert (tables["user"].shape, tables["item"].shape) == ((200, model.user_width), (300, dim))
    for key, x in tables.items():
        deviation = dim**-0.5
        assert abs(x.mean()) < 5 * deviation / np.sqrt(x.size), key
        assert abs(x.std() / deviation - 1) < 5 / np.sqrt(2 * x.size), key
        assert abs((x**4).mean() / deviation**4 - 3) < 5 * np.sqrt(96 / x.size), key
    firsts = [x.flat[0] for x in tables.values()]
    assert len(set(firsts)) == len(firsts), "two tables start from the same draws"


def test_options_decide_which_parameters_there_are() -> None:
    def shapes(name: str, **options: Any) -> dict[str, tuple[int, ...]]:
        return shapes_of(build(name, DIM, options))

    shared = {"key": (DIM, 20), "memory": (20, DIM)}
    for name in ("cml", "cmlf", "adacml", "transcf", "dpcml", "history_mean"):
        assert shapes(name) == {}
    assert shapes("lrml") == shapes("hlr") == shapes("hlrpp") == shared
    own = {"user_key": (DIM, 7), "user_memory": (7, DIM)}
    assert shapes("hlr", slots=7, separate_user_memory=True) == {
        "key": (DIM, 7),
        "memory": (7, DIM),
        **own,
    }

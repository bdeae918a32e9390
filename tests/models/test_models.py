"""Every registered model: against the oracle with each of its options, and the common contract."""

import functools
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jaxtyping import Array
from numpy.typing import ArrayLike

from hlr_jax import config as configs
from hlr_jax import objective, optimizers, ranking, training
from hlr_jax.config import Config, LossConfig, ModelConfig, OptimizerConfig, SamplingConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models import History, Relation, base, build, names, register
from hlr_jax.models.base import Histories
from hlr_jax.objective import Params
from hlr_jax.placement import Placement
from hlr_jax.sampling import Batch
from hlr_jax.sources import training_source
from hlr_jax.training import TrainState

# Tiny, so that the oracle's loops and numerical gradients are quick.
USERS, ITEMS, DIM, SLOTS, PLACES = 4, 10, 6, 4, 4

# Values that each option of a relation is tested with, alone and together.
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "cml": {},
    "cmlf": {},
    "lrml": {},
    "hlr": {
        "include_user": (True, False),
        "separate_user_memory": (False, True),
        "beta": (1.0, 0.5),
    },
    "hlrpp": {"beta": (1.0, 0.5)},
    "adacml": {"beta": (1.0, 0.5)},
    # Most translated users leave the smaller ball, and none the larger.
    "history_mean": {"history_weight": (1.0, 0.5), "clip_translated": (1.0, 3.0)},
    # Users' diversity is below, between and above the bounds.
    "dpcml": {
        "vectors": (2, 3),
        "diversity_weight": (10.0,),
        "min_diversity": (0.05, 0.9),
        "max_diversity": (1.2,),
    },
    "transcf": {"alpha_nbr": (0.1, 0.4), "alpha_dist": (0.1, 0.0)},
}
# Options that size or bound parameters, or of what is added to the loss of a step; they have tests
# of their own.
NOT_IN_RELATION = {"slots", "clip_memory", "clip_key", "feature_weight", "feature_hidden"}


def variants(name: str) -> list[dict[str, Any]]:
    choices = CHOICES.get(name, {})
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


NO_ORACLE = pytest.mark.skip(
    reason="no oracle: add the relation to tests/oracles.py and its options to CHOICES"
)
VARIANTS = [
    pytest.param(
        name,
        options,
        id="-".join([name, *map(str, options.values())]),
        marks=() if name in CHOICES else NO_ORACLE,
    )
    for name in names()
    for options in variants(name)
]
WITH_HISTORY = [
    pytest.param(*variant.values, id=str(variant.id))
    for variant in VARIANTS
    if base.get(str(variant.values[0])).uses_history
]


compiled_relation = jax.jit(
    lambda model, params, *rows: base.apply(model, params, "__call__", *rows), static_argnums=0
)
compiled_scores = jax.jit(base.scores, static_argnums=0)


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


class Case:
    """Random parameters and a batch, in the oracle's form and in the library's.

    The batch has a full, two short and an empty history, and ends in a row of padding.
    """

    users = np.array([0, 1, 2, 3, 1])
    history = np.array(
        [[1, 2, 3, 4], [5, -1, -1, -1], [-1, -1, -1, -1], [-1, 6, 0, -1], [7, 8, 9, -1]]
    )
    row_mask = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    items = np.array([[5, 7, 3, 1], [2, 0, 9, 6], [4, 8, 1, 2], [9, 3, 2, 7], [6, 1, 4, 0]])
    # Who is whose neighbour; the last user and some items have none.
    pairs = ((0, 1), (0, 2), (0, 5), (0, 9), (1, 5), (1, 2), (1, 7), (2, 4), (2, 2))

    def __init__(self, name: str, options: Mapping[str, Any], num_negatives: int = 3) -> None:
        rng = np.random.default_rng(5)
        sizes = {"slots": SLOTS} if "slots" in base.options(base.get(name)) else {}
        self.name, self.options = name, dict(options)
        self.model = build(name, DIM, {**sizes, **options})
        shapes = shapes_of(self.model)
        self.params = {
            "user": rng.normal(0, 0.45, (USERS, self.model.user_width)),
            "item": rng.normal(0, 0.45, (ITEMS, DIM)),
        }
        for key in sorted(shapes):
            scale = 1.5 if key.endswith("key") else 0.6
            self.params[key] = rng.normal(0, scale, shapes[key])
        self.batch = {
            "users": self.users,
            "positives": self.items[:, 0],
            "negatives": self.items[:, 1 : 1 + num_negatives],
            "history": self.history,
            "row_mask": self.row_mask,
        }
        self.neighbours: dict[str, np.ndarray] = {}
        if self.model.uses_neighbours:
            self.neighbours = dict(zip(("user", "item"), self.means_of_neighbours(), strict=True))
            self.batch |= self.neighbours_of(self.batch)

    def means_of_neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the parameters as they are now; in a gradient they stay what they are."""
        return oracles.transcf_neighbours(self.params, self.pairs)

    def neighbours_of(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "user_neighbours": self.neighbours["user"][batch["users"]],
            "positive_neighbours": self.neighbours["item"][batch["positives"]],
            "negative_neighbours": self.neighbours["item"][batch["negatives"]],
        }

    def read(self, params: Params) -> Params:
        """What the model reads of parameters: rows followed by the means of their neighbours."""
        wider = {
            name: jnp.concatenate([params[name], jnp.asarray(means, params[name].dtype)], axis=1)
            for name, means in self.neighbours.items()
        }
        return params | wider

    def read_params(self) -> Params:
        return self.read(self.jax_params())

    def jax_params(self, dtype: Any = jnp.float32) -> Params:
        return as_jax_params(self.params, dtype)

    def jax_histories(self, rows: slice = slice(None)) -> Histories | None:
        return as_histories(self.history[rows]) if self.model.uses_history else None

    def jax_batch(self, dtype: Any = jnp.float32) -> Batch:
        items = np.column_stack([self.batch["positives"], self.batch["negatives"]])
        return Batch(
            jnp.asarray(self.users, jnp.int32),
            jnp.asarray(items, jnp.int32),
            self.jax_histories(),
            jnp.asarray(self.row_mask, dtype),
        )

    def loss(self, params: Mapping[str, np.ndarray], loss: LossConfig) -> float:
        """The oracle's; it must be smooth here, or a gradient would say nothing."""
        options = {**self.options, "copy_relation": loss.copy_relation}
        return oracles.batch_loss(
            dict(params),
            self.batch,
            self.name,
            options,
            margin=loss.margin,
            reduction=loss.reduction,
            rank_weight=loss.rank_weight,
            covariance_weight=loss.covariance,
        )

    def distances(self, copy_relation: bool) -> np.ndarray:
        options = {**self.options, "copy_relation": copy_relation}
        return np.column_stack(oracles.batch_distances(self.params, self.batch, self.name, options))

    def check_hinges(self, loss: LossConfig) -> None:
        """Some hinges are active and some are not, and none is near its kink."""
        distances = self.distances(loss.copy_relation)[self.row_mask == 1]
        hinge = distances[:, :1] - distances[:, 1:] + loss.margin
        assert np.abs(hinge).min() > 1e-3
        assert 0 < (hinge > 0).sum() < hinge.size


def shapes_of(model: Relation) -> dict[str, tuple[int, ...]]:
    """Of the relation's own parameters."""
    params = jax.eval_shape(lambda key: training.init_params(key, model, 2, 2), jax.random.key(0))
    return {name: x.shape for name, x in params["relation"].items()}


def as_jax_params(params: Mapping[str, np.ndarray], dtype: Any = jnp.float32) -> Params:
    """`{"user", "item", "relation": {...}}` of the oracle's flat parameters."""
    arrays = {name: jnp.asarray(value, dtype) for name, value in params.items()}
    tables = {name: arrays.pop(name) for name in ("user", "item")}
    return {**tables, "relation": arrays}


def as_oracle_params(params: Params) -> dict[str, np.ndarray]:
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {name: np.asarray(value, np.float64) for name, value in flat.items()}


def as_histories(items: np.ndarray) -> Histories:
    return Histories(jnp.asarray(np.maximum(items, 0), jnp.int32), jnp.asarray(items >= 0))


def gradient_of_step(case: Case, loss: LossConfig) -> dict[str, np.ndarray]:
    """What a step of plain gradient descent at rate 1, without constraints, subtracts."""
    config = Config(
        model=ModelConfig(clip_norm=1e9),
        loss=loss,
        optimizer=OptimizerConfig(name="sgd", learning_rate=1.0),
    )
    optimizer = optimizers.build(config.optimizer, config.training, 1)
    state = TrainState.of(case.jax_params(jnp.float64), optimizer)
    batch = case.jax_batch(jnp.float64)
    read = case.read(state.params) if case.model.uses_neighbours else None
    after, _ = training.train_step(state, batch, case.model, optimizer, config, read=read)
    before, after = as_oracle_params(state.params), as_oracle_params(after.params)
    return {name: before[name] - after[name] for name in before}


# --- the oracle ----------------------------------------------------------------------------------


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


# --- the registry --------------------------------------------------------------------------------


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(InputError, match="'nope'") as error:
        build("nope", DIM, {})
    for name in names():
        assert name in str(error.value)


def test_an_unknown_option_is_refused_with_the_options_there_are() -> None:
    with pytest.raises(InputError, match=r"config\.model\.betta.*beta, include_user"):
        build("hlr", DIM, {"betta": 0.5})
    with pytest.raises(InputError, match=r"config\.model\.slots.*'cml'.*none"):
        build("cml", DIM, {"slots": 3})


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"slots": -1}, {"clip_memory": -1.0}, {"clip_key": -0.1}]
)
@pytest.mark.parametrize("name", ["lrml", "hlr", "hlrpp"])
def test_values_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(InputError, match=rf"config\.model\.{option}"):
        build(name, DIM, options)


@pytest.mark.parametrize("name", ["hlr", "hlrpp", "adacml"])
def test_a_negative_smoothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"config\.model\.beta=-0\.5: use 0 or more"):
        build(name, DIM, {"beta": -0.5})


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("history_weight", -0.5, "use 0 or more"),
        ("clip_translated", 0.0, "use a radius above 0"),
        ("clip_translated", -1.0, "use a radius above 0"),
    ],
)
def test_a_mean_or_ball_out_of_range_is_refused(option: str, value: float, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"config\.model\.{option}={value}: {remedy}"):
        build("history_mean", DIM, {option: value})


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


@pytest.mark.parametrize("option", ["alpha_nbr", "alpha_dist"])
def test_a_negative_weight_of_a_penalty_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=rf"config\.model\.{option}=-0\.1: use a weight, or 0"):
        build("transcf", DIM, {option: -0.1})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


@pytest.mark.usefixtures("registry")
def test_a_name_can_be_registered_once() -> None:
    with pytest.raises(ValueError, match="'cml' is registered already"):

        @register("cml")
        class Another(Relation):
            pass


@pytest.mark.usefixtures("registry")
def test_an_option_has_one_type_in_all_models() -> None:
    """They share a flag."""
    with pytest.raises(ValueError, match=r"other\.beta"):

        @register("other")
        class Other(Relation):
            beta: bool = True

    assert "other" not in names()


# --- the contract of every model -----------------------------------------------------------------


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


# --- a model of one's own ------------------------------------------------------------------------


def example_in_the_readme() -> str:
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    return text.split("## Write a relation")[1].split("```python\n")[1].split("```")[0]


@pytest.mark.usefixtures("registry")
def test_a_new_relation_trains_and_ranks_with_no_other_change() -> None:
    exec(example_in_the_readme(), {})
    assert "neighbours" in names()
    config = Config(
        model=ModelConfig(name="neighbours", dim=DIM, options={"strength": 0.3}),
        sampling=SamplingConfig(negatives=2, history_length=PLACES),
        optimizer=OptimizerConfig(learning_rate=0.1),
    )
    assert configs.from_config_dict(configs.as_dict(config)) == config
    model = build(config.model.name, config.model.dim, config.model.options)
    assert training.history_length(model, config) == PLACES

    rng = np.random.default_rng(0)
    pairs = rng.permutation(USERS * ITEMS)[:14]
    train = Interactions.from_pairs(pairs // ITEMS, pairs % ITEMS, USERS, ITEMS)
    params = training.init_params(jax.random.key(0), model, USERS, ITEMS)
    before = as_oracle_params(params)
    optimizer = optimizers.build(config.optimizer, config.training, 2)
    placement = Placement.replicated(2, USERS, ITEMS)
    state = placement.state(placement.params(params), optimizer)
    positives = placement.positives(train.offsets, lambda users: training_source(train))
    order = placement.order(jax.random.key(3), positives, 7)
    key = jax.random.key(1)
    state = placement.advance(state, positives.source, order, key, 0, 2, model, optimizer, config)
    assert (state.step, state.triplets) == (2, 28)
    after = as_oracle_params(state.params)
    assert np.abs(after["user"] - before["user"]).max() > 0.05

    # Histories fit, so none is drawn: every user's is its whole row.
    users = np.arange(USERS, dtype=np.int32)
    length = int(train.counts.max())
    items, scores = ranking.top_k(
        model, state.params, train, train, users, 3, length, jax.random.key(2)
    )
    expected = np.empty((USERS, ITEMS))
    for user in range(USERS):
        mean, row = after["item"][train.of(user)].mean(axis=0), after["user"][user]
        translated = row + 0.3 * (mean - row)
        expected[user] = [-oracles.squared_distance(translated, item) for item in after["item"]]
    best = oracles.top_k(expected, [train.of(user).tolist() for user in range(USERS)], 3)
    np.testing.assert_array_equal(items, best)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, best, 1), rtol=1e-5)

"""CML's item features: the penalty and its gradient, training with it, and what is refused."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax.sharding import Mesh
from jax.test_util import check_grads

from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    GeometryConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import GEOMETRIES
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS, Relation
from hlr_jax.models.relation import apply
from hlr_jax.parallel import layout
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training import state as states
from hlr_jax.training.epoch import advance
from hlr_jax.training.exchange import DenseExchange
from hlr_jax.training.inputs import (
    make_objective,
    make_recipe,
    shuffled_rows,
    training_positives,
)
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.objective import FeaturesPenalty, Objective
from hlr_jax.training.optimizers import GivenOptimizer
from hlr_jax.training.state import Sizes, TrainState, init_params, new_params
from hlr_jax.training.step import train_step
from hlr_jax.types import HistoryIds, Params, PerExampleNegatives, TripletBatch

USERS, ITEMS, DIM, HIDDEN, FEATURES = 5, 9, 4, 6, 3
OPTIONS = {"feature_weight": 0.3, "feature_hidden": HIDDEN}
# Some of the network's points are outside of it, some within.
RADIUS = 0.7

BATCH = {
    "users": np.array([0, 1, 4, 2]),
    "positives": np.array([3, 1, 3, 8]),
    "negatives": np.array([[1, 2], [7, 0], [4, 6], [5, 5]]),
    "row_mask": np.array([1.0, 1.0, 1.0, 0.0]),
}


GEOMETRY = oracles.Ball(RADIUS)


def features() -> np.ndarray:
    """Of length 1 but for the last item's, of which nothing is known."""
    rows = np.random.default_rng(1).normal(size=(ITEMS, FEATURES))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[-1] = 0
    return rows


def start() -> dict[str, np.ndarray]:
    """Tables and network, in the oracle's form."""
    rng = np.random.default_rng(2)
    shapes = {
        "user": (USERS, DIM),
        "item": (ITEMS, DIM),
        "hidden_kernel": (FEATURES, HIDDEN),
        "hidden_bias": (HIDDEN,),
        "output_kernel": (HIDDEN, DIM),
        "output_bias": (DIM,),
    }
    return {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}


def as_params(flat: dict[str, np.ndarray], dtype: Any = jnp.float32) -> Params:
    found = {name: jnp.asarray(x, dtype) for name, x in flat.items()}
    layers = ("hidden", "output")
    network = {
        name: {part: found[f"{name}_{part}"] for part in ("kernel", "bias")} for name in layers
    }
    return {"user": found["user"], "item": found["item"], "relation": network}


def as_flat(params: Params) -> dict[str, np.ndarray]:
    layers = params["relation"].items()
    network = {f"{name}_{part}": x for name, layer in layers for part, x in layer.items()}
    tables = {name: params[name] for name in ("user", "item")}
    return {name: np.asarray(x, np.float64) for name, x in (tables | network).items()}


def penalty_of(flat: dict[str, np.ndarray]) -> float:
    return OPTIONS["feature_weight"] * oracles.feature_penalty(
        flat["item"], features(), flat, GEOMETRY
    )


def config_of(**sections: Any) -> Config:
    return Config(
        **{
            "model": ModelConfig("cmlf", dim=DIM, options=OPTIONS),
            "geometry": GeometryConfig(options={"radius": RADIUS}),
            "sampling": SamplingConfig(options={"num_negatives": 2}),
            "optimizer": OptimizerConfig(learning_rate=0.03),
            "training": TrainingConfig(batch_size=7, epochs=2),
            "evaluation": EvaluationConfig(cutoffs=(3,), bootstrap=0),
        }
        | sections
    )


def model_in(geometry: str, **options: float) -> Relation:
    space = GEOMETRIES.build(geometry, options)
    return RELATIONS.build("cmlf", OPTIONS, dim=DIM, geometry=space)


MODEL = model_in("ball", radius=RADIUS)


# --- the penalty ---------------------------------------------------------------------------------


def penalty(model: Relation, params: Params, rows: jax.Array) -> jax.Array:
    return FeaturesPenalty(rows)(model, params, jnp.asarray(0))


def test_the_penalty_is_that_of_the_equation() -> None:
    points = oracles.feature_points(features(), start(), GEOMETRY)
    lengths = np.linalg.norm(points, axis=1)
    assert (lengths < 0.9 * RADIUS).any()
    assert (lengths > 0.999 * RADIUS).any()
    rows = jnp.asarray(features(), jnp.float32)
    found = penalty(MODEL, as_params(start()), rows)
    np.testing.assert_allclose(found, penalty_of(start()), rtol=1e-5)
    for name, options, oracle in (
        ("sphere", {"radius": 1.3}, oracles.Sphere(1.3)),
        ("lorentz", {"curvature": 0.7, "radius": RADIUS}, oracles.Lorentz(0.7, RADIUS)),
    ):
        found = penalty(model_in(name, **options), as_params(start()), rows)
        expected = oracles.feature_penalty(start()["item"], features(), start(), oracle)
        np.testing.assert_allclose(found, OPTIONS["feature_weight"] * expected, rtol=1e-5)


def test_the_gradient_goes_into_items_and_network() -> None:
    expected = oracles.numerical_gradient(penalty_of, start())
    with jax.enable_x64(True):
        params, rows = as_params(start(), jnp.float64), jnp.asarray(features())
        gradient = jax.jit(jax.grad(penalty, argnums=1))(MODEL, params, rows)

        def of_items(item: jax.Array, relation: Params) -> jax.Array:
            return apply(MODEL, relation, "features_penalty", item, rows)

        # Which tries NumPy's arrays, too, unless it is compiled.
        check_grads(jax.jit(of_items), (params["item"], params["relation"]), 1, ("rev",))
    assert not expected["user"].any()
    for name, x in as_flat(gradient).items():
        assert name == "user" or np.abs(expected[name]).max() > 0.05
        np.testing.assert_allclose(x, expected[name], rtol=1e-6, atol=1e-8)


def test_points_of_the_network_are_measured_as_items_are() -> None:
    """On the sphere they are normalised too: at most its diameter away from an item."""
    rows, params = jnp.asarray(features(), jnp.float32), as_params(start())
    zero = params | {"item": jnp.zeros_like(params["item"])}
    found = penalty(model_in("sphere", radius=RADIUS), zero, rows)
    np.testing.assert_allclose(found, 0.3 * ITEMS * RADIUS**2, rtol=1e-5)
    assert penalty(MODEL, zero, rows) < 0.99 * found


def test_the_network_s_parameters_go_by_the_number_of_features() -> None:
    params = init_params(jax.random.key(0), MODEL, Sizes(USERS, ITEMS, FEATURES))
    expected = {name: x.shape for name, x in start().items()}
    assert {name: x.shape for name, x in as_flat(params).items()} == expected
    without = init_params(jax.random.key(0), MODEL, Sizes(USERS, ITEMS))
    assert without["relation"] == {}
    for table in ("user", "item"):  # those of a run without features
        np.testing.assert_array_equal(params[table], without[table])


# --- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_steps_are_those_of_the_equations(reduction: str) -> None:
    """Three of Adam's on hinge and penalty, against loops and numerical gradients."""

    def total(flat: dict[str, np.ndarray]) -> float:
        hinge = oracles.batch_loss(flat, BATCH, "cmlf", {}, margin=0.6, reduction=reduction)
        return hinge + penalty_of(flat)

    expected = oracles.adam_steps_dense(
        lambda flat: oracles.numerical_gradient(total, flat), start(), 3, 0.01, radius=RADIUS
    )
    optimizer = GivenOptimizer(ADAM, ())
    # Double precision, because Adam makes much of small gradients; of their smallest there remains
    # the difference between TensorFlow's place for epsilon and Optax's.
    with jax.enable_x64(True):
        negatives = jnp.asarray(BATCH["negatives"], jnp.int32)
        batch = TripletBatch(
            jnp.asarray(BATCH["users"], jnp.int32),
            jnp.asarray(BATCH["positives"], jnp.int32),
            PerExampleNegatives(negatives, jnp.ones((4, 2), bool)),
            HistoryIds.empty(4),
            jnp.asarray(BATCH["row_mask"]),
        )
        penalties = (FeaturesPenalty(jnp.asarray(features())),)
        objective = Objective(MODEL, Hinge(0.6), penalties, ITEMS, reduction=reduction)
        step = jax.jit(train_step)
        state = TrainState.of(as_params(start(), jnp.float64), optimizer)
        for wanted in expected:
            arguments = batch, objective, optimizer, DenseExchange(), NoNeighbours()
            state, _ = step(state, *arguments)
            for name, x in as_flat(state.params).items():
                np.testing.assert_allclose(x, wanted[name], atol=1e-5, err_msg=name)
    # The loss reported is that of triplets, as validation has it.
    assert float(state.loss_terms) == 3 * 3 * 2


GROUPS = 3
ADAM = optax.adam(0.01)


@functools.cache
def planted() -> Dataset:
    """Users like items of their group, which the features tell; nobody has trained on the last.

    The last GROUPS items, one of each group, are liked in the test split alone.
    """
    known, unknown = 18, 3
    pairs = [
        (user, item) for user in range(12) for item in range(known) if item % GROUPS == user % 3
    ]
    test = [(user, known + user % GROUPS) for user in range(12)]
    valid = [pair for n, pair in enumerate(pairs) if n % 6 == 5]
    train = [pair for n, pair in enumerate(pairs) if n % 6 != 5]
    parts = [
        Interactions.from_pairs(*np.array(those).T, 12, known + unknown)
        for those in (train, valid, test)
    ]
    groups = np.eye(GROUPS, dtype=np.float32)[np.arange(known + unknown) % GROUPS]
    return Dataset("planted", *parts, np.arange(12), np.arange(known + unknown), features=groups)


def test_features_place_items_that_nobody_has() -> None:
    """Each user is closer to the unknown item of its group than to those of the others."""
    options = {"feature_weight": 3.0, "feature_hidden": HIDDEN}
    config = config_of(
        model=ModelConfig("cmlf", dim=DIM, options=options),
        training=TrainingConfig(batch_size=20, epochs=60, patience=0),
    )
    found = experiment.train(config, dataset=planted(), show_progress=False)
    users, items = (np.asarray(found.params[name]) for name in ("user", "item"))
    distances = np.square(users[:, None] - items[None, -GROUPS:]).sum(-1)
    np.testing.assert_array_equal(distances.argmin(axis=1), np.arange(12) % GROUPS)


@pytest.mark.parametrize(("axes", "count"), [("data", 2), ("mesh", 3)])
def test_n_devices_train_as_one_does(axes: str, count: int) -> None:
    one, several = trained("data", 1), trained(axes, count)
    assert jax.tree.structure(one.params) == jax.tree.structure(several.params)
    for x, y in zip(jax.tree.leaves(several), jax.tree.leaves(one), strict=True):
        assert np.abs(np.asarray(x) - np.asarray(y)).max() <= 1e-5 * np.abs(y).max()


@functools.cache
def trained(axes: str, count: int) -> TrainState:
    """The state after 8 steps, by pmap or over a mesh of two axes."""
    config, data = config_of(), planted()
    placement = Placement.replicated(count, data.num_users, data.num_items)
    if axes == "mesh":
        mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, 1), layout.MESH)
        placement = dataclasses.replace(placement, mesh=mesh)
    objective = make_objective(config, MODEL, data.num_items, data.features)
    recipe = jax.tree.map(placement.put, make_recipe(config, objective, data, 8))
    key = placement.put(jax.random.key(0))
    params = new_params(key, objective, placement, data.num_features)
    positives = training_positives(placement, data, config)
    rows = shuffled_rows(positives, 7, key)
    like = states.state_shapes(params, recipe.optimizer, placement)
    state = states.new_state(params, recipe.optimizer, like)
    return advance(state, rows, (0, 8), recipe, placement)


# --- from files ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The planted data as files, in the current folder."""
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    data = planted()
    for part in ("train", "valid", "test"):
        own = getattr(data, part)
        pairs = zip(own.users, own.items, strict=True)
        lines = ["user,item", *(f"{user},{item}" for user, item in pairs)]
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / f"{part}.csv").write_text("\n".join(lines) + "\n")
    lines = ["movie,a,b,c", *(f"{n},{a},{b},{c}" for n, (a, b, c) in enumerate(data.features))]
    (tmp_path / "features.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_on_files_is_loaded_from_any_folder(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(data=DataConfig(predefined="split", features="features.csv"))
    found = experiment.train(config, "run", show_progress=False)
    given = experiment.train(config_of(), dataset=planted(), show_progress=False)
    for x, y in zip(jax.tree.leaves(found.params), jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(x, y)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    loaded = Recommender.load(folder / "run")
    assert loaded.recommend([1, 2], 3).equals(found.recommend([1, 2], 3))
    # A run keeps its features; to resume it, others are other data.
    text = (folder / "features.csv").read_text()
    (folder / "features.csv").write_text(text.replace("0.0,1.0", "0.5,1.0"))
    again = Recommender.load(folder / "run")
    assert again.recommend([1, 2], 3).equals(found.recommend([1, 2], 3))
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="the run was trained on other data"):
        experiment.train(config, "run", show_progress=False)


def test_a_model_trained_again_on_validation_has_its_features_too(folder: pathlib.Path) -> None:
    config = config_of(
        data=DataConfig(predefined="split", features="features.csv"),
        training=TrainingConfig(batch_size=7, epochs=2, refit=True),
    )
    found = experiment.train(config, "run", show_progress=False)
    loaded = Recommender.load("run")
    assert loaded.recommend([1, 2], 3).equals(found.recommend([1, 2], 3))
    assert found.params["relation"]["hidden"]["kernel"].shape == (GROUPS, HIDDEN)


# --- what is refused -----------------------------------------------------------------------------


def refused(config: Config, data: Dataset) -> str:
    with pytest.raises(InputError) as caught:
        experiment.train(config, dataset=data, show_progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_of_features_needs_some() -> None:
    data = dataclasses.replace(planted(), features=None)
    assert refused(config_of(), data) == (
        "config.data.features='': model 'cmlf' reads features of items; use own for those of the "
        "data set, or the path of a table"
    )


def test_features_that_a_model_does_not_read_are_refused() -> None:
    config = config_of(model=ModelConfig("cml", dim=DIM), data=DataConfig(features="own"))
    assert refused(config, planted()) == (
        "config.data.features='own': model 'cml' reads no features of items; leave them out (of "
        "a Dataset too), or set config.model.name='cmlf'"
    )


def test_features_need_updates_of_all_rows() -> None:
    config = config_of(optimizer=OptimizerConfig(updates="sparse"))
    assert refused(config, planted()).startswith("config.optimizer.updates='sparse': use dense, ")


def test_features_need_replicated_tables() -> None:
    config = config_of(sharding=ShardingConfig(tables="sharded"))
    assert refused(config, planted()).startswith("config.sharding.tables='sharded': model 'cmlf' ")


@pytest.mark.parametrize("shape", [(20, 3), (21,)])
def test_features_need_a_row_for_each_item(shape: tuple[int, ...]) -> None:
    data = dataclasses.replace(planted(), features=np.ones(shape, np.float32))
    message = refused(config_of(), data)
    assert f"features have shape {shape}; give a row to each of its 21 items" in message


@pytest.mark.parametrize(("option", "value"), [("feature_weight", -0.1), ("feature_hidden", 0)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"config\.model\.{option}={value}: use "):
        RELATIONS.build("cmlf", {option: value}, dim=DIM)

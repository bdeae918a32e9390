"""Models by name, what is refused, and a model of one's own."""

import pathlib
from typing import Any

import jax
import numpy as np
import oracles
import pytest
from cases import DIM, ITEMS, PLACES, USERS, as_oracle_params

from hlr_jax import config as configs
from hlr_jax.config import Config, ModelConfig, OptimizerConfig, SamplingConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import ranking
from hlr_jax.models import Relation, build, names, register
from hlr_jax.models import relation as base
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.sources import training_source
from hlr_jax.training import optimizers
from hlr_jax.training import step as training


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


def example_in_the_readme() -> str:
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    return text.split("## Write a relation")[1].split("```python\n")[1].split("```")[0]


@pytest.mark.usefixtures("registry")
def test_a_new_relation_trains_and_ranks_with_no_other_change() -> None:
    base._REGISTRY.pop("neighbours", None)  # Who tries the example has a file with it.
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

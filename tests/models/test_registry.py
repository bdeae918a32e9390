"""Models by name, what is refused, and a model of one's own."""

import pathlib
import sys
import types
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import oracles
import pytest
from support.cases import DIM, ITEMS, USERS, as_oracle_params

from hlr_jax import config as configs
from hlr_jax.config import Config, ModelConfig, OptimizerConfig, SamplingConfig, TrainingConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.losses import LOSSES, Loss
from hlr_jax.models import RELATIONS, Relation, register
from hlr_jax.runs import experiment
from hlr_jax.testing import check_relation


def build(name: str, options: dict[str, Any]) -> Relation:
    return RELATIONS.build(name, options, dim=DIM)


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(InputError, match="'nope'") as error:
        build("nope", {})
    for name in RELATIONS.names():
        assert name in str(error.value)


def test_an_unknown_option_is_refused_with_the_options_there_are() -> None:
    with pytest.raises(InputError, match=r"config\.model\.betta.*beta, include_user"):
        build("hlr", {"betta": 0.5})
    with pytest.raises(InputError, match=r"config\.model\.slots.*'cml'.*none"):
        build("cml", {"slots": 3})


OUT_OF_RANGE = [
    *(
        (name, *option)
        for name in ("lrml", "hlr", "hlrpp")
        for option in (
            ("slots", 0, "use at least 1 memory slot"),
            ("slots", -1, "use at least 1 memory slot"),
            ("clip_memory", -1.0, "use a radius, or 0 for none"),
            ("clip_key", -0.1, "use a radius, or 0 for none"),
        )
    ),
    *((name, "beta", -0.5, "use 0 or more") for name in ("hlr", "hlrpp", "adacml")),
    ("history_mean", "history_weight", -0.5, "use 0 or more"),
    ("history_mean", "clip_translated", 0.0, "use a radius above 0"),
    ("history_mean", "clip_translated", -1.0, "use a radius above 0"),
    ("items_only", "start_weight", 0.0, "use a weight above 0"),
    ("nearest_items", "start_weight", 0.0, "use a weight between 0 and 1"),
    ("nearest_items", "start_weight", 1.0, "use a weight between 0 and 1"),
    ("nearest_items", "start_temperature", 0.0, "use a temperature above 0"),
    ("recent_items", "start_weight", -0.1, "use 0 or more"),
    ("recent_items", "start_decay", 0.0, "use a factor between 0 and 1"),
    ("recent_items", "start_decay", 1.0, "use a factor between 0 and 1"),
    ("rotation", "rank", 0, "use a rank of 1 or more"),
    ("multi_head", "heads", 0, f"use a divisor of config.model.dim={DIM}"),
    ("multi_head", "heads", 4, f"use a divisor of config.model.dim={DIM}"),
    ("transcf", "alpha_nbr", -0.1, "use a weight, or 0 for none"),
    ("transcf", "alpha_dist", -0.1, "use a weight, or 0 for none"),
]


@pytest.mark.parametrize(("name", "option", "value", "remedy"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused(name: str, option: str, value: float, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"config\.model\.{option}={value}: {remedy}") as caught:
        build(name, {option: value})
    assert "\n" not in str(caught.value)


def test_a_rotation_needs_an_even_number_of_dimensions() -> None:
    with pytest.raises(InputError, match=r"config\.model\.dim=5: use an even number"):
        RELATIONS.build("rotation", {}, dim=5)


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for registry in (RELATIONS, LOSSES):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))


@pytest.mark.usefixtures("_restored")
def test_a_name_can_be_registered_once() -> None:
    with pytest.raises(InputError, match=r"Another: a model named 'cml' is registered already"):

        @register("cml")
        class Another(Relation):
            pass


@pytest.mark.usefixtures("_restored")
def test_an_option_has_one_type_in_all_models() -> None:
    """They share a flag."""
    with pytest.raises(
        InputError, match=r"Other: option 'beta' is a bool, and that of .*\.\w+ is a f"
    ):

        @register("other")
        class Other(Relation):
            beta: bool = True

    assert "other" not in RELATIONS.names()


@pytest.mark.usefixtures("_restored")
def test_an_option_has_a_default() -> None:
    with pytest.raises(InputError, match=r"Open: give option 'strength' a default"):

        @register("open")
        class Open(Loss):
            strength: float

    assert "open" not in LOSSES.names()


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    ("kind", "default", "option", "fault"),
    [
        (
            float | None,
            None,
            "rate",
            "annotate option 'rate' as bool, int, float, str or a tuple, w",
        ),
        (
            float | None,
            0.5,
            "rate",
            "annotate option 'rate' as bool, int, float, str or a tuple, w",
        ),
        (
            int,
            0.5,
            "rate",
            "annotate option 'rate' as bool, int, float, str or a tuple, with a defa",
        ),
        (list, [1, 2], "sizes", "option 'sizes' has a list as its default; write a tuple"),
        (float, 0.5, "items", "option 'items' cannot be a flag; rename it"),
        (int, 2, "lock", "option 'lock' cannot be a flag; rename it"),
    ],
)
@pytest.mark.parametrize("base", [Loss, Relation])
def test_an_option_can_be_a_flag(base, kind, default, option, fault) -> None:
    with pytest.raises(InputError, match=rf"\.Odd: {fault}") as caught:
        register("odd")(type("Odd", (base,), {"__annotations__": {option: kind}, option: default}))
    assert "\n" not in str(caught.value)
    assert "odd" not in [*RELATIONS.names(), *LOSSES.names()]


@pytest.mark.usefixtures("_restored")
def test_kinds_of_options_that_are_taken() -> None:
    @register("odd")
    class Odd(Loss):
        form: Literal["log", "square"] = "log"
        sizes: tuple[int, ...] = (1, 2)
        strength: float = 1

    assert LOSSES.options("odd") == {"form": "log", "sizes": (1, 2), "strength": 1.0}


@pytest.mark.parametrize("field", ["dim", "geometry", "name", "parent"])
def test_a_relation_has_no_option_that_the_library_sets(field: str) -> None:
    with pytest.raises(InputError, match=rf"Odd: option '{field}' is a field of config.model alr"):
        type("Odd", (Relation,), {"__annotations__": {field: int}, field: 2})


def test_an_option_of_a_relation_has_a_default() -> None:
    with pytest.raises(InputError, match=r"Open: give option 'strength' a default"):

        class Open(Relation):
            about: ClassVar[str]
            strength: float


def test_a_decorator_without_a_name_is_refused() -> None:
    for decorator in (register, LOSSES.register):
        with pytest.raises(InputError, match=r"test_registry.*Bare: write @register\('my_name'\)"):

            @decorator  # type: ignore[arg-type]
            class Bare(Loss):
                pass


def example_in_the_readme(monkeypatch: pytest.MonkeyPatch) -> type[Relation]:
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text.split("## Write a relation")[1].split("```python\n")[1].split("```")[0]
    module = types.ModuleType("example_of_the_readme")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # As where it is a file.
    exec(code, vars(module))
    return RELATIONS.get("neighbours")


@pytest.mark.usefixtures("_restored")
def test_a_new_relation_trains_and_ranks_with_no_other_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    RELATIONS._classes.pop("neighbours", None)  # Who tries the example has a file with it.
    check_relation(example_in_the_readme(monkeypatch), (Ball(),))
    config = Config(
        model=ModelConfig(name="neighbours", dim=DIM, options={"strength": 0.3}),
        sampling=SamplingConfig(history_length=ITEMS, options={"num_negatives": 2}),
        optimizer=OptimizerConfig(learning_rate=0.1),
        training=TrainingConfig(batch_size=7, epochs=1, patience=0),
    )
    again = configs.from_config_dict(configs.as_dict(config))
    assert again.model == config.model
    assert configs.as_dict(again) == configs.as_dict(config)

    rng = np.random.default_rng(0)
    pairs = rng.permutation(USERS * ITEMS)[:16]
    train, valid, test = (
        Interactions.from_pairs(some // ITEMS, some % ITEMS, USERS, ITEMS)
        for some in (pairs[:14], pairs[:0], pairs[14:])
    )
    data = Dataset("made up", train, valid, test, np.arange(USERS), np.arange(ITEMS))
    run = experiment.train(config, None, data, show_progress=False)
    after = as_oracle_params(jax.tree.map(np.asarray, run.params))
    lengths = np.linalg.norm(after["item"], axis=1)
    assert (lengths < 1.0001).all()

    # Histories fit, so none is drawn: every user's is its whole row.
    users = np.arange(USERS, dtype=np.int32)
    items, scores = run.top_k(users, 3, train)
    expected = np.empty((USERS, ITEMS))
    for user in range(USERS):
        own, row = train.of(user), after["user"][user]
        mean = after["item"][own].mean(axis=0) if len(own) else 0
        translated = row + 0.3 * (mean - row)
        expected[user] = [-oracles.squared_distance(translated, item) for item in after["item"]]
    best = oracles.top_k(expected, [train.of(user).tolist() for user in range(USERS)], 3)
    np.testing.assert_array_equal(items, best)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, best, 1), rtol=1e-5)

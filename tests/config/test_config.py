"""Configurations: there and back again, and errors that name the field."""

import dataclasses
import json
import logging
from typing import Any

import pytest

from hlr_jax import config as configs
from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.errors import InputError
from hlr_jax.sampling.samplers import build_sampler

SECTIONS = [
    field.name for field in dataclasses.fields(Config) if field.name not in ("seed", "imports")
]
NAMED = list(build.NAME_FIELDS)

# Nothing at its default, except optimizer.updates and sharding, which do not go with penalties,
# and training.refit, which does not go with data.join_valid.
CHANGED = Config(
    data=DataConfig(
        name="file",
        predefined="p",
        path="t.csv",
        format="csv",
        user_column="u",
        item_column="i",
        rating_column="r",
        timestamp_column="t",
        separator=";",
        encoding="latin-1",
        decimal=",",
        on_bad_row="drop",
        min_rating=3.5,
        core=4,
        item_core=2,
        features="f.csv",
        split="per_user",
        valid_split="random",
        valid_fraction=0.1,
        test_fraction=0.3,
        split_seed=1,
        keep_times=True,
        join_valid=True,
    ),
    model=ModelConfig("lrml", dim=8, options={"slots": 3, "clip_memory": 0.5}),
    geometry=GeometryConfig("sphere", options={"radius": 0.5}),
    sampling=SamplingConfig(
        negatives="shared",
        history_length=7,
        history="unpopular",
        options={"num_negatives": 2, "popularity_exponent": 0.75},
    ),
    loss=LossConfig(
        name="contrastive",
        reduction="mean",
        user_weight_exponent=0.5,
        copy_relation=True,
        covariance=0.2,
        covariance_form="log_det",
        uniformity=0.3,
        options={"margin": 0.1, "negative_weight": 20.0},
    ),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=0.1,
        schedule="cosine",
        schedule_epochs=7,
        decay_rate=0.5,
        warmup_epochs=0.5,
        gradient_clip=3.0,
        weight_decay=0.1,
        weight_decay_exponent=0.5,
    ),
    training=TrainingConfig(
        epochs=3,
        batch_size=7,
        patience=2,
        selection_metric="ndcg@5",
        pretrained="x.npz",
        freeze_user=True,
        freeze_item=True,
        matmul_precision="bfloat16",
        checkpoint_minutes=1.5,
        on_nonfinite="rollback",
        rollbacks=5,
        deterministic=True,
    ),
    evaluation=EvaluationConfig(
        cutoffs=(3, 7),
        protocol="sampled",
        history_length=9,
        cohorts=2,
        cohort_size=5,
        bootstrap=7,
        per_user=True,
        batch_size=3,
    ),
    seed=7,
)


CHANGED_UPDATE = dataclasses.replace(
    CHANGED,
    data=dataclasses.replace(CHANGED.data, join_valid=False),
    sampling=SamplingConfig(negatives="full_catalog"),
    loss=LossConfig(name="softmax", options={"temperature": 0.3}),
    optimizer=dataclasses.replace(CHANGED.optimizer, schedule="exponential", updates="sparse"),
    training=dataclasses.replace(CHANGED.training, refit=True, batch_of="users"),
    sharding=ShardingConfig(tables="sharded", item_shards=2, user_parts=6),
)


def named(section: str, name: str) -> Config:
    """The defaults, but for the registered name of a section."""
    fields = dataclasses.replace(getattr(Config(), section), **{build.NAME_FIELDS[section]: name})
    return dataclasses.replace(Config(), **{section: fields})


def every_class() -> list[Any]:
    """Each section that names a class, with each registered name."""
    return [(section, name) for section in NAMED for name in build.registry(section).names()]


def with_all_options(config: Config) -> Config:
    """The same with the options that are left out, at their defaults."""
    for section in NAMED:
        fields = getattr(config, section)
        options = build.options(section, build.registered_name(section, fields))
        fields = dataclasses.replace(fields, options=options | dict(fields.options))
        config = dataclasses.replace(config, **{section: fields})
    return config


def every_config() -> list[Any]:
    by_name = [pytest.param(named(*each), id="-".join(each)) for each in every_class()]
    changed = [
        pytest.param(CHANGED, id="changed"),
        pytest.param(CHANGED_UPDATE, id="changed update"),
    ]
    return [*by_name, *changed]


@pytest.mark.parametrize("config", every_config())
def test_a_configuration_comes_back(config):
    expected = with_all_options(config)
    assert configs.from_config_dict(configs.as_config_dict(config)) == expected
    assert configs.from_config_dict(configs.as_dict(config)) == expected
    assert configs.from_config_dict(json.loads(json.dumps(configs.as_dict(config)))) == expected
    assert configs.from_config_dict(configs.as_dict(expected)) == expected


def test_left_out_fields_are_defaults():
    assert configs.from_config_dict({}) == Config()
    assert configs.from_config_dict({"training": {"epochs": 2}}).training.epochs == 2


def test_configurations_are_hashable_and_equal_by_value():
    assert hash(with_all_options(CHANGED)) == hash(with_all_options(CHANGED))
    for section in NAMED:
        fields = dataclasses.replace(getattr(CHANGED, section), options={"other": 1})
        assert dataclasses.replace(CHANGED, **{section: fields}) != CHANGED


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_can_be_changed_by_a_flag(section):
    in_update = section in ("optimizer", "training", "sharding")
    changed = with_all_options(CHANGED_UPDATE if in_update else CHANGED)
    values = configs.as_config_dict(Config())
    fields = dataclasses.asdict(getattr(changed, section))
    fields |= fields.pop("options", {})
    for name, value in fields.items():
        # As `--config.section.name=value` does; a ConfigDict refuses another type.
        values[section][name] = value
    assert getattr(configs.from_config_dict(values), section) == getattr(changed, section)
    for field in dataclasses.fields(getattr(changed, section)):
        default = getattr(getattr(Config(), section), field.name)
        assert getattr(getattr(changed, section), field.name) != default, field.name


def test_one_section_can_be_changed_alone():
    values = configs.section_config_dict("data", DataConfig())
    assert list(values) == ["data"]
    values.data.min_rating = 3.0
    assert values.data.min_rating == 3.0


# --- options of other classes --------------------------------------------------------------------


def test_each_class_can_be_changed_by_name_alone(caplog):
    values = configs.as_config_dict(Config(model=ModelConfig("hlr", dim=5)))
    values.model.name = "cml"
    values.loss.name = "softmax"
    values.geometry.name = "lorentz"
    values.sampling.negatives = "full_catalog"
    with caplog.at_level(logging.WARNING, logger="absl"):
        config = configs.from_config_dict(values)
    assert config.model == ModelConfig("cml", dim=5, options={})
    assert config.loss == LossConfig("softmax", options=build.options("loss", "softmax"))
    assert config.sampling == SamplingConfig("full_catalog")
    assert config.geometry.options == build.options("geometry", "lorentz")
    assert not caplog.records


def test_options_that_a_class_does_not_use_are_reported(caplog):
    values = configs.as_config_dict(
        Config(
            model=ModelConfig("hlr", options={"beta": 0.5}),
            loss=LossConfig(options={"margin": 0.3}),
        )
    )
    values.model.name = "lrml"
    values.loss.name = "softmax"
    values.sampling.popularity_exponent = 0.5
    values.sampling.negatives = "full_catalog"
    with caplog.at_level(logging.WARNING, logger="absl"):
        config = configs.from_config_dict(values)
    assert "beta" not in config.model.options
    assert "margin" not in config.loss.options
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "config.model.beta=0.5: model lrml does not use it",
        "config.sampling.popularity_exponent=0.5: sampler full_catalog does not use it",
        "config.loss.margin=0.3: loss softmax does not use it",
    ]


BUILD = {
    "model": build.build_model,
    "geometry": build.build_geometry,
    "sampling": build_sampler,
    "loss": build.build_loss,
}


# Another value of options that are words, or not any number.
OTHERS = {"implementation": "xla", "slot_form": "centred", "activation": "atan", "heads": 4}


def changed(default: Any) -> Any:
    if isinstance(default, bool):
        return not default
    # Floats by little, because options may bound one another.
    return default + (0.1 if isinstance(default, float) else 1)


@pytest.mark.parametrize(("section", "name"), every_class())
def test_every_option_of_a_class_can_be_set(section, name):
    for option, default in build.options(section, name).items():
        value = OTHERS.get(option) or changed(default)
        values = configs.as_config_dict(named(section, name))
        values[section][option] = value
        config = configs.from_config_dict(values)
        assert getattr(config, section).options[option] == value
        assert getattr(BUILD[section](config), option) == value


def test_models_are_built_in_their_geometry_and_options_with_their_types():
    config = dataclasses.replace(CHANGED, loss=LossConfig(options={"margin": 1}))
    model = build.build_model(config)
    assert (model.dim, model.slots, model.geometry) == (8, 3, build.build_geometry(config))
    assert model.geometry.radius == 0.5
    assert isinstance(build.build_loss(config).margin, float)


def test_options_may_not_be_named_as_fields():
    registry = build.registry("loss")

    @registry.register("reduced")
    class Reduced(registry.get("hinge")):
        reduction: str = "sum"

    try:
        with pytest.raises(InputError, match=r"Reduced: option 'reduction' is a field of config"):
            configs.as_dict(Config())
    finally:
        del registry._classes["reduced"]


def test_flat_names_every_option_that_is_used():
    flat = configs.flat(Config(imports=["json"]))
    assert flat["imports"] == ("json",)
    assert (flat["seed"], flat["loss.margin"], flat["sampling.num_negatives"]) == (2021, 0.5, 1)
    assert flat["geometry.radius"] == 1.0
    assert "loss.temperature" not in flat
    assert configs.flat(with_all_options(CHANGED)) == configs.flat(CHANGED)

"""Configurations: there and back again, and errors that name the field."""

import dataclasses
import importlib.util
import json
import logging
import pathlib
import typing
from typing import Any

import ml_collections
import pytest

from hlr_jax import config as configs
from hlr_jax import models
from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)
from hlr_jax.config.values import typed
from hlr_jax.errors import InputError
from hlr_jax.models import relation as base

CONFIG_FILES = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*/*.py"))
SECTIONS = [field.name for field in dataclasses.fields(Config) if field.name != "seed"]

# Nothing at its default, except optimizer.rows and sharding, which go with no covariance, and
# training.refit, which does not go with data.join_valid.
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
        min_rating=3.5,
        core=4,
        item_core=2,
        features="f.csv",
        split="per_user",
        valid_fraction=0.1,
        test_fraction=0.3,
        split_seed=1,
        join_valid=True,
    ),
    model=ModelConfig(
        "hlr", dim=8, clip_norm=0.5, surface="sphere", options={"slots": 3, "beta": 0.5}
    ),
    sampling=SamplingConfig(
        negatives=2, pool="batch", skew=0.75, history_length=7, history="unpopular"
    ),
    loss=LossConfig(
        name="closest",
        margin=0.1,
        negative_weight=20.0,
        temperature=0.3,
        reduction="mean",
        rank_weight=True,
        balance=0.5,
        copy_relation=True,
        covariance=0.2,
        covariance_form="log_det",
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
    ),
    training=TrainingConfig(
        epochs=3,
        batch_size=7,
        patience=2,
        select="ndcg@5",
        pretrained="x.npz",
        freeze_user=True,
        freeze_item=True,
        checkpoint_minutes=1.5,
        tensorboard=True,
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


CHANGED_ROWS = dataclasses.replace(
    CHANGED,
    data=dataclasses.replace(CHANGED.data, join_valid=False),
    sampling=SamplingConfig(pool="catalogue"),
    loss=LossConfig(name="softmax"),
    optimizer=dataclasses.replace(CHANGED.optimizer, schedule="exponential", rows="touched"),
    training=dataclasses.replace(CHANGED.training, refit=True, batch_of="users"),
    sharding=ShardingConfig(tables="sharded", item_blocks=2, user_parts=6),
)


def with_all_options(config: Config) -> Config:
    """With the options that are left out at the model's defaults."""
    options = base.options(base.get(config.model.name)) | dict(config.model.options)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, options=options))


def every_config() -> list[Any]:
    by_model = [pytest.param(Config(model=ModelConfig(name)), id=name) for name in models.names()]
    changed = [pytest.param(CHANGED, id="changed"), pytest.param(CHANGED_ROWS, id="changed rows")]
    return [*by_model, *changed]


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
    # Compiled programs are looked up by them.
    assert hash(with_all_options(CHANGED)) == hash(with_all_options(CHANGED))
    other = dataclasses.replace(CHANGED, model=ModelConfig("hlr", options={"slots": 4}))
    assert other != CHANGED


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_can_be_changed_by_a_flag(section):
    in_rows = section in ("optimizer", "training", "sharding")
    changed = with_all_options(CHANGED_ROWS if in_rows else CHANGED)
    # Batches of users need these two.
    needed = Config(sampling=CHANGED_ROWS.sampling, loss=CHANGED_ROWS.loss)
    values = configs.as_config_dict(needed if section == "training" else Config())
    fields = dataclasses.asdict(getattr(changed, section))
    fields |= fields.pop("options", {})
    for name, value in fields.items():
        # As `--config.section.name=value` does; a ConfigDict refuses another type.
        values[section][name] = value
    assert getattr(configs.from_config_dict(values), section) == getattr(changed, section)
    for field in dataclasses.fields(getattr(changed, section)):
        default = getattr(getattr(Config(), section), field.name)
        if (section, field.name) != ("model", "name"):
            assert getattr(getattr(changed, section), field.name) != default, field.name


def test_one_section_can_be_changed_alone():
    values = configs.section_config_dict("data", DataConfig())
    assert list(values) == ["data"]
    values.data.min_rating = 3.0
    assert values.data.min_rating == 3.0


# --- another model's options ---------------------------------------------------------------------


def test_the_model_can_be_changed_by_name_alone(caplog):
    values = configs.as_config_dict(Config(model=ModelConfig("hlr", dim=5)))
    values.model.name = "cml"
    with caplog.at_level(logging.WARNING, logger="absl"):
        config = configs.from_config_dict(values)
    assert config.model == ModelConfig("cml", dim=5, options={})
    assert not caplog.records


def test_options_that_a_model_does_not_use_are_told(caplog):
    values = configs.as_config_dict(Config(model=ModelConfig("hlr", options={"beta": 0.5})))
    values.model.name = "lrml"
    with caplog.at_level(logging.WARNING, logger="absl"):
        config = configs.from_config_dict(values)
    assert "beta" not in config.model.options
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["config.model.beta=0.5: model lrml does not use it"]


@pytest.mark.parametrize("name", models.names())
def test_every_option_of_a_model_can_be_set(name):
    for option, default in base.options(base.get(name)).items():
        # Floats by little, because options may bound one another.
        more = 0.1 if isinstance(default, float) else 1
        value = not default if isinstance(default, bool) else default + more
        values = configs.as_config_dict(Config(model=ModelConfig(name)))
        values.model[option] = value
        config = configs.from_config_dict(values)
        assert config.model.options[option] == value
        assert getattr(models.build(name, 3, config.model.options), option) == value


# --- errors --------------------------------------------------------------------------------------


def nested(name: str, value: Any) -> dict[str, Any]:
    section, _, field = name.rpartition(".")
    return {section: {field: value}} if section else {field: value}


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("modle", {}, "config.modle: there is no such field; did you mean model?"),
        ("xyz", 1, "config.xyz: there is no such field; it has data, model"),
        ("loss.margn", 1.0, "config.loss.margn: there is no such field; did you mean margin?"),
        ("model.slts", 2, "config.model.slts: there is no such field; did you mean slots?"),
        ("model.options", {}, "config.model.options: there is no such field"),
        ("loss", 3, "config.loss=3: expected a section with fields"),
        ("seed", "1", "config.seed='1': expected int"),
        ("seed", True, "config.seed=True: expected int"),
        ("seed", -1, "config.seed=-1: use 0 to 2^32 - 1"),
        ("model.dim", 8.0, "config.model.dim=8.0: expected int"),
        ("model.dim", "8", "config.model.dim='8': expected int"),
        ("model.slots", 2.5, "config.model.slots=2.5: expected int"),
        ("model.include_user", 1, "config.model.include_user=1: expected bool"),
        ("loss.margin", "0.5", "config.loss.margin='0.5': expected float"),
        ("loss.margin", True, "config.loss.margin=True: expected float"),
        ("loss.margin", float("nan"), "config.loss.margin=nan: expected a finite number"),
        ("loss.margin", float("inf"), "config.loss.margin=inf: expected a finite number"),
        ("loss.rank_weight", "yes", "config.loss.rank_weight='yes': expected bool"),
        ("data.name", 3, "config.data.name=3: expected str"),
        ("data.name", None, "config.data.name=None: expected str"),
        ("data.core", 1.5, "config.data.core=1.5: expected int or nothing"),
        ("data.core", -1, "config.data.core=-1: use 0"),
        ("data.min_rating", "4", "config.data.min_rating='4': expected float or nothing"),
        ("data.split", "rnd", "config.data.split='rnd': use one of"),
        ("data.test_fraction", 0.0, "config.data.test_fraction=0.0: use a fraction"),
        ("data.test_fraction", 0.95, "nothing is left to train on"),
        ("evaluation.cutoffs", (5, "x"), "config.evaluation.cutoffs='x': expected int"),
        ("evaluation.cutoffs", (), "config.evaluation.cutoffs=(): give at least one"),
        ("evaluation.protocol", "half", "config.evaluation.protocol='half': use one of full"),
        ("training.patience", -1, "config.training.patience=-1"),
        ("training.checkpoint_minutes", 0.0, "config.training.checkpoint_minutes=0.0"),
        ("optimizer.decay_rate", 1.5, "config.optimizer.decay_rate=1.5"),
        ("optimizer.schedule_epochs", -1, "config.optimizer.schedule_epochs=-1: use 0 or more"),
        ("optimizer.rows", "some", "config.optimizer.rows='some'"),
        ("optimizer.warmup_epochs", -1.0, "config.optimizer.warmup_epochs=-1.0"),
        ("sampling.history", "all", "config.sampling.history='all': use one of uniform"),
        ("sampling.pool", "epoch", "config.sampling.pool='epoch': use one of triplet, batch, cat"),
        ("sampling.pool", True, "config.sampling.pool=True: expected str"),
        ("sampling.skew", -0.5, "config.sampling.skew=-0.5: use 0 to 2"),
        ("sampling.skew", 2.5, "config.sampling.skew=2.5: use 0 to 2"),
        ("sampling.skew", float("nan"), "config.sampling.skew=nan: expected a finite number"),
        ("model.surface", "cube", "config.model.surface='cube': use one of ball, sphere"),
        ("loss.negative_weight", -1.0, "config.loss.negative_weight=-1.0: use 0 or more"),
        ("loss.covariance_form", "trace", "config.loss.covariance_form='trace': use one of off_"),
        ("loss.covariance", -1.0, "config.loss.covariance=-1.0"),
        ("loss.name", "bpr", "config.loss.name='bpr': use one of hinge, closest, semi_hard, two"),
        ("loss.temperature", 0.0, "config.loss.temperature=0.0: use more than 0"),
        ("loss.temperature", -1.0, "config.loss.temperature=-1.0: use more than 0"),
        ("loss.balance", 1.5, "config.loss.balance=1.5: use 0 to 1"),
        ("loss.balance", -0.1, "config.loss.balance=-0.1: use 0 to 1"),
        ("training.refit", 1, "config.training.refit=1: expected bool"),
        ("data.join_valid", "yes", "config.data.join_valid='yes': expected bool"),
        ("sharding.tables", "cut", "config.sharding.tables='cut': use one of replicated, sharded"),
        ("sharding.item_block", 2, "config.sharding.item_block: there is no such field; did you"),
        ("sharding.item_blocks", 0, "config.sharding.item_blocks=0: use 1 or more"),
        ("sharding.item_blocks", 2, "config.sharding.item_blocks=2: set config.sharding.tables"),
        ("sharding.item_blocks", "2", "config.sharding.item_blocks='2': expected int"),
        ("sharding.user_parts", -1, "config.sharding.user_parts=-1: use 0 or more"),
        ("sharding.user_parts", 1.5, "config.sharding.user_parts=1.5: expected int"),
    ],
)
def test_errors_name_the_field_and_what_would_be_right(name, value, fault):
    with pytest.raises(InputError) as caught:
        configs.from_config_dict(nested(name, value))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("loss.margin", 1, 1.0),
        ("data.min_rating", 4, 4.0),
        ("data.min_rating", None, None),
        ("evaluation.cutoffs", [5, 10], (5, 10)),
        ("evaluation.cutoffs", 5, (5,)),
    ],
)
def test_values_that_mean_the_same_are_taken(name, value, kept):
    config = configs.from_config_dict(nested(name, value))
    section, _, field = name.partition(".")
    found = getattr(getattr(config, section), field)
    assert found == kept
    assert type(found) is type(kept)


def test_a_covariance_needs_updates_of_all_rows():
    values = {"optimizer": {"rows": "touched"}, "loss": {"covariance": 0.1}}
    with pytest.raises(InputError, match=r"config\.optimizer\.rows='touched': use all, because"):
        configs.from_config_dict(values)


def test_a_covariance_needs_whole_tables():
    values = {"sharding": {"tables": "sharded"}, "loss": {"covariance": 0.1}}
    with pytest.raises(InputError, match=r"config\.loss\.covariance=0\.1: it needs all rows on a"):
        configs.from_config_dict(values)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"sampling": {"pool": "catalogue", "skew": 0.5}},
            "config.sampling.skew=0.5: use 0: with config.sampling.pool='catalogue' nothing is",
        ),
        (
            {"loss": {"name": "softmax", "rank_weight": True}},
            "config.loss.rank_weight=True: it weighs hinges; use False with config.loss.name=",
        ),
        ({"loss": {"name": "semi_hard", "rank_weight": True}}, "config.loss.rank_weight=True: it"),
        (
            {"training": {"refit": True}, "data": {"join_valid": True}},
            "config.training.refit=True: with config.data.join_valid=True there is nothing to add",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, fault):
    with pytest.raises(InputError) as caught:
        configs.from_config_dict(values)
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)
    for section, fields in values.items():  # each alone is fine
        for name, value in fields.items():
            configs.from_config_dict({section: {name: value}})


@pytest.mark.parametrize("fields", [{}, {"item_blocks": 2}, {"user_parts": 6}, {"item_blocks": 3}])
def test_tables_can_be_cut_in_any_blocks(fields):
    sharding = configs.from_config_dict({"sharding": {"tables": "sharded", **fields}}).sharding
    assert sharding == ShardingConfig("sharded", **fields)
    assert sharding.is_sharded


def test_parts_of_users_need_no_cut_tables():
    sharding = configs.from_config_dict({"sharding": {"user_parts": 6}}).sharding
    assert (sharding.user_parts, sharding.is_sharded) == (6, False)


def test_an_unknown_model_is_refused_with_those_there_are():
    values = {"model": {"name": "mf"}}
    known = ", ".join(models.names())
    with pytest.raises(InputError, match=rf"config\.model\.name='mf': use one of {known}"):
        configs.from_config_dict(values)
    with pytest.raises(InputError, match=r"config\.model\.name='mf'"):
        models.build("mf", 3, {})


def test_defaults_have_the_types_of_their_fields():
    for section in SECTIONS:
        cls = type(getattr(Config(), section))
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "options"}
        for name, field in fields.items():
            typed(f"{section}.{name}", hints[name], field.default)


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_files_are_valid(path):
    spec = importlib.util.spec_from_file_location("a_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config()
    assert isinstance(values, ml_collections.ConfigDict)
    config = configs.from_config_dict(values)
    # The folder and the file are named by what they hold.
    assert config.data.name == path.parent.name
    assert path.stem.startswith(config.model.name)

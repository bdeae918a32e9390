"""Errors of a configuration name the field and what would be right."""

import dataclasses
import subprocess
import sys
import typing
from typing import Any

import pytest

from hlr_jax import config as configs
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    ShardingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.config.values import typed
from hlr_jax.errors import InputError


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
        ("imports", 3, "config.imports=3: expected str"),
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
        ("loss.copy_relation", "yes", "config.loss.copy_relation='yes': expected bool"),
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
        ("training.rollbacks", 0, "config.training.rollbacks=0: use 1 or more"),
        ("training.on_nonfinite", "warn", "config.training.on_nonfinite='warn'"),
        ("training.checkpoint_minutes", 0.0, "config.training.checkpoint_minutes=0.0"),
        ("optimizer.decay_rate", 1.5, "config.optimizer.decay_rate=1.5"),
        ("optimizer.schedule_epochs", -1, "config.optimizer.schedule_epochs=-1: use 0 or more"),
        (
            "optimizer.weight_decay_exponent",
            1.5,
            "config.optimizer.weight_decay_exponent=1.5: use -1",
        ),
        (
            "optimizer.weight_decay_exponent",
            0.5,
            "config.optimizer.weight_decay_exponent=0.5: adam has no weight decay; set config.opt",
        ),
        ("optimizer.updates", "some", "config.optimizer.updates='some': use one of dense, sparse"),
        ("optimizer.warmup_epochs", -1.0, "config.optimizer.warmup_epochs=-1.0"),
        ("sampling.history", "all", "config.sampling.history='all': use one of uniform"),
        ("sampling.history_length", 0, "config.sampling.history_length=0: use 1 or more"),
        (
            "sampling.negatives",
            "epoch",
            "config.sampling.negatives='epoch': use one of full_catalog, per_example, shared",
        ),
        ("sampling.negatives", True, "config.sampling.negatives=True: expected str"),
        ("sampling.num_negatives", 0, "config.sampling.num_negatives=0: draw at least 1"),
        ("sampling.popularity_exponent", -0.5, "config.sampling.popularity_exponent=-0.5: use 0"),
        ("sampling.popularity_exponent", 2.5, "config.sampling.popularity_exponent=2.5: use 0 to"),
        (
            "sampling.popularity_exponent",
            float("nan"),
            "config.sampling.popularity_exponent=nan: expected a finite number",
        ),
        ("geometry.name", "cube", "config.geometry.name='cube': use one of ball, lorentz, sphere"),
        ("geometry.radius", 0.0, "config.geometry.radius=0.0: use"),
        ("geometry.radious", 1.0, "config.geometry.radious: there is no such field; did you mean"),
        ("loss.margin", -0.1, "config.loss.margin=-0.1: the margin must not be negative"),
        ("loss.covariance_form", "trace", "config.loss.covariance_form='trace': use one of off_"),
        ("loss.covariance", -1.0, "config.loss.covariance=-1.0"),
        ("loss.uniformity", -1.0, "config.loss.uniformity=-1.0: use 0 or more"),
        ("loss.name", "bpr", "config.loss.name='bpr': use one of contrastive, cpe, hardest, hinge"),
        ("loss.user_weight_exponent", 1.5, "config.loss.user_weight_exponent=1.5: use 0 to 1"),
        ("loss.user_weight_exponent", -0.1, "config.loss.user_weight_exponent=-0.1: use 0 to 1"),
        ("training.refit", 1, "config.training.refit=1: expected bool"),
        ("data.join_valid", "yes", "config.data.join_valid='yes': expected bool"),
        ("sharding.tables", "cut", "config.sharding.tables='cut': use one of replicated, sharded"),
        ("sharding.item_shard", 2, "config.sharding.item_shard: there is no such field; did you"),
        ("sharding.item_shards", 0, "config.sharding.item_shards=0: use 1 or more"),
        ("sharding.item_shards", 2, "config.sharding.item_shards=2: set config.sharding.tables"),
        ("sharding.item_shards", "2", "config.sharding.item_shards='2': expected int"),
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
    ("name", "options", "fault"),
    [
        ("softmax", {"temperature": 0.0}, "config.loss.temperature=0.0: use more than 0"),
        ("softmax", {"temperature": -1.0}, "config.loss.temperature=-1.0: use more than 0"),
        ("contrastive", {"negative_weight": -1.0}, "config.loss.negative_weight=-1.0: use 0 or m"),
        ("warp", {"margin": -1.0}, "config.loss.margin=-1.0: the margin must not be negative"),
    ],
)
def test_options_of_the_loss_that_is_used_are_checked(name, options, fault):
    with pytest.raises(InputError) as caught:
        configs.from_config_dict({"loss": {"name": name, **options}})
    assert str(caught.value).startswith(fault)
    with pytest.raises(InputError, match=fault.split(":")[0]):
        build.build_all(Config(loss=LossConfig(name, options=options)))
    # The hinge has none of them, or had it at another value.
    configs.from_config_dict({"loss": {"name": "hinge"}})


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
    fields = getattr(config, section)
    found = fields.options[field] if field == "margin" else getattr(fields, field)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize("fields", [{}, {"item_shards": 2}, {"user_parts": 6}, {"item_shards": 3}])
def test_tables_can_have_any_number_of_shards(fields):
    sharding = configs.from_config_dict({"sharding": {"tables": "sharded", **fields}}).sharding
    assert sharding == ShardingConfig("sharded", **fields)
    assert sharding.is_sharded


def test_parts_of_users_need_no_sharded_tables():
    sharding = configs.from_config_dict({"sharding": {"user_parts": 6}}).sharding
    assert (sharding.user_parts, sharding.is_sharded) == (6, False)


def test_an_unknown_model_is_refused_with_those_there_are():
    values = {"model": {"name": "mf"}}
    known = ", ".join(build.registry("model").names())
    with pytest.raises(InputError, match=rf"config\.model\.name='mf': use one of {known}"):
        configs.from_config_dict(values)
    with pytest.raises(InputError, match=r"config\.model\.name='mf'"):
        build.build_model(Config(model=ModelConfig("mf")))


def test_defaults_have_the_types_of_their_fields():
    for section in [field.name for field in dataclasses.fields(Config)]:
        if section in ("seed", "imports"):
            continue
        cls = type(getattr(Config(), section))
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "options"}
        for name, field in fields.items():
            typed(f"{section}.{name}", hints[name], field.default)


def test_a_flag_that_means_a_field():
    command = [sys.executable, "-m", "hlr_jax", "train", "--config=embedded/cml", "--epochs=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --epochs: there is no such flag; did you mean --config.training.epochs=3?\n"
    )


def test_an_unknown_field_in_python():
    with pytest.raises(InputError, match=r"config\.training\.epoch: .*did you mean epochs\?"):
        TrainingConfig(epoch=3)

"""Old names of fields and values: each is refused in one line that gives the new name."""

import json

import pytest

from hlr_jax import config as configs
from hlr_jax.config import Config, LossConfig, SamplingConfig, build, files, renamed
from hlr_jax.errors import InputError

# What each old field used to hold.
OLD_VALUES = {
    "model.clip_norm": 0.5,
    "model.surface": "sphere",
    "sampling.pool": "batch",
    "sampling.skew": 0.5,
    "loss.balance": 0.5,
    "loss.rank_weight": True,
    "optimizer.rows": "touched",
    "training.select": "ndcg@10",
    "sharding.item_blocks": 2,
}


@pytest.mark.parametrize("old", renamed.FIELDS)
def test_old_fields_name_the_new_ones(old, tmp_path):
    section, _, name = old.partition(".")
    expected = f"config.{old}: renamed, use config.{renamed.FIELDS[old]}"
    with pytest.raises(InputError) as caught:
        configs.from_config_dict({section: {name: OLD_VALUES[old]}})
    assert str(caught.value) == expected

    # A configuration file, whose program fails where it gives the old keyword.
    file = tmp_path / "old.py"
    file.write_text(
        "from hlr_jax import config as c\n\n\ndef get_config():\n    return c.as_config_dict(\n"
        f"        c.Config({section}=c.{section.capitalize()}Config({name}={OLD_VALUES[old]!r}))\n"
        "    )\n"
    )
    with pytest.raises(InputError) as caught:
        files.read(str(file))
    assert str(caught.value) == f"--config={file}: line 6: {expected}"


def test_a_field_that_is_gone_names_what_is_used_instead(tmp_path):
    expected = "config.training.tensorboard: removed, use --trackers=tensorboard"
    with pytest.raises(InputError) as caught:
        configs.from_config_dict({"training": {"tensorboard": True}})
    assert str(caught.value) == expected
    file = tmp_path / "old.py"
    file.write_text(
        "import hlr_jax.config as c\n\ndef get_config():\n"
        "    return c.as_config_dict(c.Config(training=c.TrainingConfig(tensorboard=False)))\n"
    )
    with pytest.raises(InputError) as caught:
        files.read(str(file))
    assert str(caught.value) == f"--config={file}: line 4: {expected}"


def test_a_stored_field_that_is_gone_and_asked_for_nothing_is_no_hindrance():
    values = configs.as_dict(Config())
    expected = configs.from_config_dict(values)
    for field, (idle, _) in renamed.REMOVED.items():
        section, _, name = field.partition(".")
        assert name not in values[section]
        values[section][name] = idle
    assert configs.from_config_dict(values) == expected


def test_new_names_exist():
    fields = configs.as_dict(Config())
    for new in renamed.FIELDS.values():
        section, _, name = new.partition("=")[0].partition(".")
        assert name in fields[section], new
    for old in renamed.FIELDS:
        section, _, name = old.partition(".")
        assert name not in fields[section], old


@pytest.mark.parametrize(("field", "value"), renamed.VALUES)
def test_old_values_name_the_new_ones(field, value):
    section, _, name = field.partition(".")
    new = renamed.VALUES[field, value]
    with pytest.raises(InputError) as caught:
        configs.from_config_dict({section: {name: value}})
    assert str(caught.value) == f"config.{field}={value!r}: renamed, use config.{new}"
    new_field, _, new_value = new.partition(" ")[0].partition("=")
    assert new_field == field
    configs.from_config_dict({section: {name: new_value.strip("'")}})


@pytest.mark.parametrize("value", [4, "4"])
def test_a_count_of_negatives_names_its_new_field(value):
    with pytest.raises(InputError) as caught:
        configs.from_config_dict({"sampling": {"negatives": value}})
    fault = f"config.sampling.negatives={value!r}: renamed, use config.sampling.num_negatives=4"
    assert str(caught.value) == fault
    with pytest.raises(InputError, match=r"renamed, use config\.sampling\.num_negatives=4"):
        SamplingConfig(value)


def test_the_file_of_an_old_run_names_all_its_old_fields_in_one_line():
    values: dict[str, dict[str, object]] = {"data": {"name": "embedded"}}
    for old, value in OLD_VALUES.items():
        section, _, name = old.partition(".")
        values.setdefault(section, {})[name] = value
    with pytest.raises(InputError) as caught:
        configs.from_config_dict(json.loads(json.dumps(values)))
    assert "\n" not in str(caught.value)
    for old, new in renamed.FIELDS.items():
        assert f"config.{old}: renamed, use config.{new}" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("LossConfig(margin=0.2)", "config.loss.margin: is an option; write LossConfig(.., option"),
        ("SamplingConfig(num_negatives=4)", "config.sampling.num_negatives: is an option; write"),
        ("LossConfig(margn=0.2)", "config.loss.margn: there is no such field"),
        ("DataConfig(margin=0.2)", "config.data.margin: there is no such field"),
    ],
)
def test_options_that_were_fields_are_explained(call, fault, tmp_path):
    file = tmp_path / "old.py"
    file.write_text(f"import hlr_jax.config as c\n\ndef get_config():\n    return c.{call}\n")
    with pytest.raises(InputError) as caught:
        files.read(str(file))
    assert str(caught.value).startswith(f"--config={file}: line 4: {fault}")


def test_other_components_may_have_the_old_names():
    assert renamed.explain("config.loss.name") is None
    renamed.check_value("data.name", "squared")
    renamed.check_value("loss.name", ["squared"])
    build.build_all(Config(loss=LossConfig("hinge", options={"margin": 0.2})))

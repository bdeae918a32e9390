"""The files under `configs/`: each is valid, and errors name what there is."""

import pathlib
import re

import ml_collections
import pytest

from hlr_jax import config as configs
from hlr_jax.config import build, execution, files, shipped
from hlr_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = shipped.FOLDER
PATHS = [
    f"{file}:{name}" if name else str(file)
    for file, names in execution.available(FOLDER).items()
    for name in names or [""]
]


@pytest.mark.parametrize("path", PATHS, ids=[path.removeprefix(f"{FOLDER}/") for path in PATHS])
def test_configurations_are_valid(path):
    values = files.read(path)
    assert isinstance(values, ml_collections.ConfigDict)
    config = configs.from_config_dict(values)
    assert config == files.load(path)
    build.build_all(config)
    # File and name say what they hold.
    file, _, name = path.partition(":")
    name = name or pathlib.Path(file).stem
    if file.endswith("embedded.py"):
        assert config.data.name == "embedded"
        assert config.model.name == {"cpe": "cml", "sfcml": "cml"}.get(name, name)
    else:
        assert name.startswith(config.data.name)
        assert config.model.name in name or name.endswith(("cpe", "sfcml"))


def test_embedded_has_each_model_but_the_one_that_needs_features():
    names = set(execution.available(FOLDER)[FOLDER / "embedded.py"])
    assert names == {*build.registry("model").names(), "cpe", "sfcml"} - {"cmlf"}


def test_published_has_the_models_of_the_hlr_authors_for_their_data():
    names = execution.available(FOLDER)[FOLDER / "published.py"]
    for data in ("ml_20m", "echonest", "yelp", "amazon_books", "ml_100k", "ml_1m"):
        for model in ("cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"):
            assert f"{data}/{model}" in names
    yelp = files.load(f"{FOLDER}/published.py:yelp/hlr")
    assert (yelp.loss.options["margin"], yelp.optimizer.learning_rate) == (0.75, 7.5e-4)
    assert (yelp.sampling.history_length, yelp.sampling.history) == (5, "unpopular")
    assert yelp.loss.copy_relation
    assert yelp.model.options["clip_memory"] == yelp.model.options["clip_key"] == 1.0


def test_tuned_files_open_with_command_score_and_cost():
    tuned = {name: path for name, path in shipped.full_names().items() if name.startswith("tuned/")}
    assert len(tuned) == len(list((FOLDER / "tuned").glob("*.py")))
    for name, file in tuned.items():
        about = pathlib.Path(file).read_text().split('"""')[1]
        assert f"hlr-jax train --config={name} " in about
        assert f"--workdir=runs/{pathlib.Path(file).stem}" in about
        assert "Cost" in about, name
        assert "core" in about, name


def test_the_texts_list_all_names():
    listed = shipped.describe().splitlines()
    groups: dict[str, list[str]] = {}
    for line in listed:
        if not line.startswith("   "):
            group, *names = line.split()
            groups[group] = names
        else:
            groups[group] += line.split()
    names = [f"{group}{name}" for group, names in groups.items() for name in names]
    assert sorted(names) == sorted(shipped.full_names())
    assert max(map(len, listed)) <= 100


def test_every_configuration_has_a_name():
    names = shipped.full_names()
    assert sorted(names.values()) == sorted(PATHS)
    for name, path in names.items():
        assert re.sub("[/:]", "_", path.removeprefix(f"{FOLDER}/").replace(".py", "")) == (
            name.replace("/", "_")
        )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("embedded/hlr", "embedded.py:hlr"),
        ("published/ml_100k/hlr", "published.py:ml_100k/hlr"),
        ("tuned/ml_100k/hlr", "tuned/ml_100k_hlr.py"),
        ("tuned/ncf_ml_1m/cml", "tuned/ncf_ml_1m_cml.py"),
        ("tuned/citeulike_t_per_user/history_mean", "tuned/citeulike_t_per_user_history_mean.py"),
        ("ml_100k/hlr", "full_catalog.py:ml_100k/hlr"),
        ("ml_100k/hlr_from_cml", "tuned/ml_100k_hlr_from_cml.py"),
        ("yelp/hlr", "published.py:yelp/hlr"),
    ],
)
def test_names_are_found_from_anywhere(name, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configs.load(name) == files.load(f"{FOLDER}/{path}")


def test_a_file_goes_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "hlr").write_text("")
    with pytest.raises(InputError, match="name a Python file"):
        configs.load("embedded/hlr")


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("configs/embedded.py", "name one of its configurations; use configs/embedded.py:NAME wi"),
        ("configs/embedded.py:", "name one of its configurations; use configs/embedded.py:NAME w"),
        ("configs/embedded.py:mf", "there is no 'mf'; use configs/embedded.py:NAME with one of cm"),
        ("configs/nothing.py", "there is no such file or name; hlr-jax train --help lists the na"),
        ("nothing.py:cml", "there is no such file or name; hlr-jax train --help lists the names "),
        ("configs", "there is no such file or name; hlr-jax train --help lists the names there"),
        ("", "there is no such file or name; hlr-jax train --help lists the names there are"),
        ("configs/embedded/hlr.py", "did you mean embedded/hlr?"),
        ("configs/ml_1m/hlr.py", "did you mean ml_1m/hlr?"),
        ("tuned/ml_1m_hlr", "did you mean tuned/ml_1m/hlr?"),
        ("/elsewhere/configs/tuned/ml_1m_hlr.py", "did you mean tuned/ml_1m/hlr?"),
        ("/elsewhere/configs/published.py:ml_1m/hlr", "did you mean published/ml_1m/hlr?"),
        ("ml_100k/hrl", "use one of ml_100k/hlr, "),
        ("tuned/ncf_ml_1m", "did you mean tuned/ncf_ml_1m/cml?"),
        ("cmlf", "did you mean ml_100k/cmlf?"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(path, fault, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as caught:
        files.load(path)
    assert fault in str(caught.value)
    assert str(caught.value).startswith("--config=")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import nothing_such\n", "line 1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("def get_config(:\n", "SyntaxError: "),
        ("CONFIG = 1\n", "the file defines no function get_config"),
        ("def get_config():\n    return {}\n", "get_config returns dict; return as_config_dict"),
        (
            "from hlr_jax.config import *\ndef get_config():\n    return DataConfig(core=-1)\n",
            "line 3: config.data.core=-1: use 0",
        ),
    ],
)
def test_programs_that_fail_are_refused_in_one_line(program, fault, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(program)
    with pytest.raises(InputError) as caught:
        files.read(str(file))
    assert str(caught.value).startswith(f"--config={file}: {fault}")
    assert execution.available(tmp_path).keys() <= {file}  # does not fail


def test_a_file_may_take_any_argument_of_its_own(tmp_path):
    file = tmp_path / "sized.py"
    file.write_text(
        "from hlr_jax.config import Config, ModelConfig, as_config_dict\n"
        "def get_config(size='8'):\n"
        "    return as_config_dict(Config(model=ModelConfig(dim=int(size))))\n"
    )
    assert files.load(f"{file}:16").model.dim == 16
    assert files.load(str(file)).model.dim == 8
    with pytest.raises(InputError, match="ValueError: invalid literal"):
        files.load(f"{file}:large")


def test_imports_are_added_to_the_configuration():
    values = files.read(f"{FOLDER}/embedded.py:cml", ["json", "re", "json"])
    assert configs.from_config_dict(values).imports == ("json", "re")
    assert files.load(f"{FOLDER}/embedded.py:cml").imports == ()

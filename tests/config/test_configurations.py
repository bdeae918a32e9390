"""The files under `configs/`: each is valid, and errors name what there is."""

import pathlib

import ml_collections
import pytest

from hlr_jax import config as configs
from hlr_jax.config import build, files
from hlr_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "configs"
PATHS = [
    f"{file}:{name}" if name else str(file)
    for file, names in files.available(FOLDER).items()
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
    names = set(files.available(FOLDER)[FOLDER / "embedded.py"])
    assert names == {*build.registry("model").names(), "cpe", "sfcml"} - {"cmlf"}


def test_published_has_the_models_of_the_hlr_authors_for_their_data():
    names = files.available(FOLDER)[FOLDER / "published.py"]
    for data in ("ml_20m", "echonest", "yelp", "amazon_books", "ml_100k", "ml_1m"):
        for model in ("cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"):
            assert f"{data}/{model}" in names
    yelp = files.load(f"{FOLDER}/published.py:yelp/hlr")
    assert (yelp.loss.options["margin"], yelp.optimizer.learning_rate) == (0.75, 7.5e-4)
    assert (yelp.sampling.history_length, yelp.sampling.history) == (5, "unpopular")
    assert yelp.loss.copy_relation
    assert yelp.model.options["clip_memory"] == yelp.model.options["clip_key"] == 1.0


def test_tuned_files_open_with_command_score_and_cost():
    for file in (FOLDER / "tuned").glob("*.py"):
        about = file.read_text().split('"""')[1]
        relative = file.relative_to(ROOT)
        assert f"python launch/train.py --config={relative}" in about
        assert f"--workdir=runs/{file.stem}" in about
        assert "Cost" in about, relative
        assert "core" in about, relative


def test_the_texts_list_all_configurations(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = files.describe(pathlib.Path("configs"))
    words = set(text.split())
    for path in PATHS:
        file, _, name = path.removeprefix(f"{ROOT}/").partition(":")
        assert (name or file) in words
    assert "configs/embedded.py:NAME" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("configs/embedded.py", "name one of its configurations; use configs/embedded.py:NAME wi"),
        ("configs/embedded.py:", "name one of its configurations; use configs/embedded.py:NAME w"),
        ("configs/embedded.py:mf", "there is no 'mf'; use configs/embedded.py:NAME with one of cm"),
        ("configs/nothing.py", "there is no such file; see configs/"),
        ("nothing.py:cml", "there is no such file; see configs/"),
        ("configs/embedded/hlr.py", "there is no such file; did you mean configs/embedded.py:hlr?"),
        (
            "configs/ml_1m/hlr.py",
            "there is no such file; did you mean configs/full_catalog.py:ml_1m/hlr or "
            "configs/published.py:ml_1m/hlr or configs/tuned/ml_1m_hlr.py?",
        ),
        ("configs", "there is no such file"),
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
    assert files.available(tmp_path).keys() <= {file}  # does not fail


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

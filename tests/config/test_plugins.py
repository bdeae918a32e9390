"""Components of other packages: found by their entry points, and by the modules that are named."""

import importlib
import json
import sys

import numpy as np
import pytest

from hlr_jax import config as configs
from hlr_jax.config import Config, LossConfig, ModelConfig, build, files, plugins
from hlr_jax.errors import InputError

LOSS = """
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.registry import register

@register("{name}")
class Mine(Hinge):
    steepness: float = 2.0
"""


@pytest.fixture(autouse=True)
def _restored(monkeypatch, tmp_path):
    """A folder on Python's path, and registries as before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_loaded", set())
    for section in build.NAME_FIELDS:
        registry = build.registry(section)
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write_module(folder, name: str, registered: str) -> None:
    (folder / f"{name}.py").write_text(LOSS.format(name=registered))
    importlib.invalidate_caches()


def install(folder, name: str, module: str) -> None:
    """As an installed distribution that declares an entry point."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hlr_jax.plugins]\n{name} = {module}\n")
    importlib.invalidate_caches()


def test_imports_register_classes_and_their_options(tmp_path):
    write_module(tmp_path, "steep_losses", "steep")
    config = Config(imports=["steep_losses"], loss=LossConfig("steep", options={"steepness": 3.0}))
    values = json.loads(json.dumps(configs.as_dict(config)))
    assert values["imports"] == ["steep_losses"]
    assert values["loss"]["steepness"] == 3.0
    # The option has a flag for every loss, and so its type is known.
    assert configs.as_config_dict(Config()).loss.steepness == 2.0

    # The file of the run is read by a program that was not told of the module.
    del sys.modules["steep_losses"]
    plugins._loaded.clear()
    del build.registry("loss")._classes["steep"]
    again = configs.from_config_dict(values)
    assert again.imports == ("steep_losses",)
    assert build.build_loss(again).steepness == 3.0
    assert configs.flat(again)["loss.steepness"] == 3.0


def test_installed_packages_are_found_by_their_entry_points_once(tmp_path, monkeypatch):
    write_module(tmp_path, "installed_losses", "installed")
    install(tmp_path, "losses_of_others", "installed_losses")
    config = configs.from_config_dict({"loss": {"name": "installed", "steepness": 4.0}})
    assert config.imports == ()
    assert build.build_loss(config).steepness == 4.0

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("again"))
    assert "installed" in configs.as_dict(config)["loss"].values()
    build.build_model(config)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("not_there", "there is no module 'not_there'; install its package, or"),
        ("not_there.losses", "there is no module 'not_there'"),
        ("broken", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("incomplete", "cannot be imported (ModuleNotFoundError: No module n"),
        ("json.not_there", "cannot be imported (ModuleNotFoundError"),
        ("takes_cml", "takes_cml.Mine: a loss named 'hinge' is registered alr"),
        ("other_type", "other_type.Mine: option 'margin' is an int, and that of hlr_jax.functi"),
        ("plugins/mine.py", "give the name of a module, as my_module"),
        ("mine.py", "give the name of a module, as my_module"),
        ("", "give the name of a module"),
        ("a_program", "ends the program while it is imported; guard that by `if __name__ =="),
        ("bare", "bare.Bare: write @register('my_name')"),
        ("own_distance", "own_distance.Mine defines a distance of its own"),
        ("no_default", "no_default.Mine: give option 'steepness' a default"),
    ],
)
def test_modules_that_cannot_be_used_are_refused_in_one_line(name, fault, tmp_path):
    write_module(tmp_path, "takes_cml", "hinge")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "incomplete.py").write_text("import not_there_either\n")
    (tmp_path / "a_program.py").write_text("import sys\nsys.exit()\n")
    of_relation = LOSS.format(name="r").replace("functional.losses.hinge", "models.cml")
    of_relation = of_relation.replace("Hinge", "CML")
    for module, text in {
        "other_type": LOSS.format(name="other").replace(
            "steepness: float = 2.0", "margin: int = 2"
        ),
        "bare": LOSS.replace('("{name}")', "").replace("Mine", "Bare"),
        "own_distance": of_relation + "    def distances(self, user, item, history): ...\n",
        "no_default": of_relation.replace(" = 2.0", ""),
    }.items():
        (tmp_path / f"{module}.py").write_text(text)
    importlib.invalidate_caches()
    # Twice, because a module that failed does not count as imported.
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            configs.from_config_dict({"imports": [name]})
        assert str(caught.value).startswith(f"imports=[{name!r}]: {fault}")
        assert "\n" not in str(caught.value)
    # A launcher names the flag.
    with pytest.raises(InputError) as caught:
        files.read("embedded.py", [name])
    assert str(caught.value).startswith(f"--import={name}: {fault}")


def test_a_broken_installed_package_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    install(tmp_path, "broken_package", "broken")
    fault = r"plugin broken_package \(of package broken_package\): cannot be imported"
    with pytest.raises(InputError, match=fault):
        configs.from_config_dict({})


def test_numbers_of_numpy_are_options_too():
    options = {"margin": np.float32(0.25)}
    config = Config(
        loss=LossConfig(options=options),
        model=ModelConfig(name="hlr", dim=np.int64(8), options={"include_user": np.bool_(False)}),
    )
    values = json.loads(json.dumps(configs.as_dict(config)))
    assert values["loss"]["margin"] == configs.flat(config)["loss.margin"] == 0.25
    assert (values["model"]["dim"], values["model"]["include_user"]) == (8, False)
    assert type(build.build_loss(config).margin) is float
    with pytest.raises(InputError, match=r"config\.loss\.margin=.*: expected float"):
        build.build_loss(Config(loss=LossConfig(options={"margin": np.ones(2)})))


def test_modules_of_the_current_folder_are_not_imported_unasked(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_module(tmp_path / "here", "lying_here", "lying_here")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
    with pytest.raises(InputError, match=r"'lying_here'; set PYTHONPATH=\. to import it from this"):
        configs.from_config_dict({"imports": ["lying_here"]})


def test_unknown_names_are_refused_with_those_of_plugins_too(tmp_path):
    write_module(tmp_path, "steep_losses", "steep")
    with pytest.raises(
        InputError, match=r"config\.loss\.name='step': use one of .*steep.*register\('step'\)"
    ):
        configs.from_config_dict({"imports": ["steep_losses"], "loss": {"name": "step"}})
    with pytest.raises(InputError, match=r"config\.model\.name='steep': use one of"):
        build.build_model(Config(imports=["steep_losses"], model=ModelConfig("steep")))

"""The configuration that a run's folder keeps: of an older version, or with modules of others."""

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from support.small_runs import config_of, planted, read_log, train

from hlr_jax import config as configs
from hlr_jax.config import Config, LossConfig, ModelConfig, build, plugins, renamed
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender

# --- of an older version -------------------------------------------------------------------------


@pytest.fixture
def old_run(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of a run that was trained before fields were renamed."""
    values = json.loads(json.dumps(configs.as_dict(config_of())))
    for section in ("geometry", "imports"):
        del values[section]
    values["model"] |= {"clip_norm": 1.0, "surface": "ball"}
    values["sampling"] = {"negatives": 2, "pool": "triplet", "skew": 0.0, "history_length": 4}
    values["loss"] = {"name": "hinge", "margin": 0.5, "rank_weight": False, "balance": 0.0}
    values["optimizer"]["rows"] = values["optimizer"].pop("updates").replace("dense", "all")
    values["training"]["select"] = values["training"].pop("selection_metric")
    values["sharding"]["item_blocks"] = values["sharding"].pop("item_shards")
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


def test_an_older_run_is_neither_resumed_nor_loaded(old_run):
    before = {path: path.stat().st_mtime_ns for path in old_run.rglob("*")}
    for use in (lambda: train(config_of(), old_run), lambda: Recommender.load(old_run, planted())):
        with pytest.raises(InputError) as caught:
            use()
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{old_run / 'config.json'}: config.")
        for old, new in renamed.FIELDS.items():
            assert f"config.{old}: renamed, use config.{new}" in message
    assert {path: path.stat().st_mtime_ns for path in old_run.rglob("*")} == before


def test_an_older_value_names_the_new_one(tmp_path):
    values = json.loads(json.dumps(configs.as_dict(config_of())))
    values["sampling"]["negatives"] = 2
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        Recommender.load(tmp_path, planted())
    expected = "config.sampling.negatives=2: renamed, use config.sampling.num_negatives=2"
    assert str(caught.value) == f"{tmp_path / 'config.json'}: {expected}"


# --- with modules of others ----------------------------------------------------------------------

MODULE = """
import jax.numpy as jnp

from hlr_jax import register
from hlr_jax.functional.losses import Loss
from hlr_jax.models import Relation


@register("shifted")
class Shifted(Relation):
    step: float = 0.5

    def __call__(self, user, item, history):
        return jnp.broadcast_to(self.step, jnp.broadcast_shapes(user.shape, item.shape))


@register("difference")
class Difference(Loss):
    def __call__(self, positive, negatives):
        return positive - jnp.sum(jnp.where(negatives.mask, negatives.values, 0), axis=-1)
"""

LOAD = """
import sys
import numpy as np
from hlr_jax.runs.recommender import Recommender
from support.planted import planted_of

found = Recommender.load(sys.argv[1], planted_of(24, 30, (6, 7, 9)))
assert type(found.model).__module__ == "modules_of_others.relations", type(found.model)
np.save(sys.argv[2], found.recommend([3, 5], 4)["item"].to_numpy())
"""


@pytest.fixture
def module_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder on Python's path with a package that registers a relation and a loss."""
    folder = tmp_path / "packages"
    (folder / "modules_of_others").mkdir(parents=True)
    (folder / "modules_of_others" / "__init__.py").write_text("")
    (folder / "modules_of_others" / "relations.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    forget(monkeypatch)
    yield str(folder)
    remove_modules()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process know nothing of what other modules registered."""
    monkeypatch.setattr(plugins, "_loaded", set())
    for section in build.NAME_FIELDS:
        registry = build.registry(section)
        own = {
            name: cls
            for name, cls in registry._classes.items()
            if cls.__module__.startswith("hlr_jax.")
        }
        monkeypatch.setattr(registry, "_classes", own)
    remove_modules()


def remove_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("modules_of_others")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_a_run_finds_the_modules_it_was_trained_with(module_folder, tmp_path, monkeypatch):
    config = Config(
        imports=("modules_of_others.relations",),
        model=ModelConfig("shifted", dim=4, options={"step": 0.25}),
        loss=LossConfig("difference"),
        training=config_of(epochs=1).training,
    )
    run = tmp_path / "run"
    trained = experiment.train(config, run, planted(), show_progress=False)
    assert json.loads((run / "config.json").read_text())["imports"] == list(config.imports)
    expected = trained.recommend([3, 5], 4)["item"].to_numpy()

    # Another process, which is given the folder of the run alone.
    tests = str(pathlib.Path(__file__).parents[1])
    paths = os.pathsep.join([module_folder, tests, *sys.path])
    command = [sys.executable, "-c", LOAD, str(run), str(tmp_path / "found.npy")]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)

    # Modules of the classes that are used are noted, whether they were named or not; others differ.
    experiment.train(dataclasses.replace(config, imports=()), run, planted(), show_progress=False)
    other = dataclasses.replace(config, imports=(*config.imports, "colorsys"))
    fault = r"config\.imports=\('modules_of_others.*'colorsys'\); use"
    with pytest.raises(InputError, match=fault):
        experiment.train(other, run, planted(), show_progress=False)
    assert len(read_log(run)) == 1

    # Where the module is not to be found any more, the line names it and the file it stands in.
    forget(monkeypatch)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != module_folder])
    with pytest.raises(InputError) as caught:
        Recommender.load(run, planted())
    assert "\n" not in str(caught.value)
    fault = "imports=['modules_of_others.relations']: there is no module 'modules_of_others'; "
    assert str(caught.value).startswith(f"{run / 'config.json'}: {fault}")

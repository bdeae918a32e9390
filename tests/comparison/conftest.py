"""Folders of small runs and a baseline on tables of the planted data."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.small_runs import ITEMS, USERS, config_of, planted

from hlr_jax import baselines, files
from hlr_jax.config import Config, DataConfig, EvaluationConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.runs import experiment


def write_tables(folder: pathlib.Path, **changed: Interactions) -> pathlib.Path:
    """The planted splits as files, some replaced."""
    folder.mkdir()
    for part in ("train", "valid", "test"):
        found = changed.get(part, getattr(planted(), part))
        pairs = zip(found.users.tolist(), found.items.tolist(), strict=True)
        lines = ["user,item", *(f"{user},{item}" for user, item in pairs)]
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return folder


def without_last(part: Interactions) -> Interactions:
    return Interactions.from_pairs(part.users[:-1], part.items[:-1], part.num_users, part.num_items)


@pytest.fixture(scope="package")
def tables(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with tables, and with others that differ from them in one split."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder / "same")
    # Another place, and another order of the lines, of the same interactions.
    swapped = Interactions.from_pairs(
        planted().test.users[::-1], planted().test.items[::-1], USERS, ITEMS
    )
    write_tables(folder / "moved", test=swapped)
    write_tables(folder / "other_test", test=without_last(planted().test))
    write_tables(folder / "other_train", train=without_last(planted().train))
    return folder


@pytest.fixture(scope="package")
def runs(tables: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """`cml_1` and `cml_2`, seeds; `fast`, of another rate; `fast_refit`; `lrml`; `ease`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HLR_JAX_CACHE", str(folder / "cache"))

        def run(name: str, of_users: bool = False, **fields: Any) -> Config:
            config = dataclasses.replace(
                config_of(**fields),
                data=DataConfig(name="file", predefined=str(tables / "same")),
                evaluation=EvaluationConfig(cutoffs=(5,), bootstrap=10, per_user=of_users),
            )
            experiment.train_and_evaluate(config, folder / name, show_progress=False)
            return config

        run("cml_1", seed=1)
        config = run("cml_2", seed=2)
        run("fast", of_users=True, learning_rate=0.08)
        run("fast_refit", of_users=True, learning_rate=0.08, refit=True)
        run("lrml", of_users=True, model="lrml")
        fixed = baselines.Tuning(fixed={"regularization": 30.0})
        baselines.tune_and_evaluate("ease", config, folder / "ease", fixed, show_progress=False)
        yield folder


@pytest.fixture
def changed(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> Callable[[str, str, dict[str, Any]], pathlib.Path]:
    """Copies a run, and changes fields `section.name` of one of its files."""

    def change(name: str, file: str, fields: dict[str, Any]) -> pathlib.Path:
        folder = tmp_path / f"{name}_changed"
        if not folder.exists():
            shutil.copytree(runs / name, folder)
        values = files.read_json_object(folder / file)
        for field, value in fields.items():
            *sections, last = field.split(".")
            inner = values
            for section in sections:
                inner = inner[section]
            inner[last] = value
        files.write_json(folder / file, values)
        return folder

    return change

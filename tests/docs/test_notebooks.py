"""The notebooks run from beginning to end in a process of their own, as users run them."""

import importlib.util
import os
from pathlib import Path

import pytest
from support import xla_flags

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture
def run_notebooks(tmp_path, monkeypatch, pytestconfig):
    """The module, where a process finds the library, nobody's profile and compiled programs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "profile"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(pytestconfig.cache.mkdir("jax")))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    monkeypatch.setenv("XLA_FLAGS", " ".join(xla_flags.known()))
    path = ROOT / "docs" / "run_notebooks.py"
    spec = importlib.util.spec_from_file_location("run_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds(notebook):
    """The kinds of outputs of each cell of code; only slow machines show progress."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [[x for x in cell.outputs if x.get("name") != "stderr"] for cell in cells]
    return [[output.output_type for output in outputs] for outputs in shown]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_kept_in_it(path, run_notebooks):
    kept = kinds(nbformat.read(path, as_version=4))
    assert any(kept)
    assert kinds(run_notebooks.executed(path)) == kept


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 3

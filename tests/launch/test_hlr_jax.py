"""`hlr-jax` itself: its list, its help, and what a wheel of it holds."""

import ast
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from support.launching import ROOT, assert_refused

from hlr_jax import __version__, baselines, programs
from hlr_jax.config import build, shipped
from hlr_jax.config.fields import SECTIONS
from hlr_jax.programs import fields


def hlr_jax(environment, *arguments, python=(), cwd=ROOT, path=ROOT):
    return subprocess.run(
        [sys.executable, *python, "-m", "hlr_jax", *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def text_of(name):
    path = ROOT / "hlr_jax" / "programs" / f"{name}.py"
    return ast.get_docstring(ast.parse(path.read_text()))


def test_every_program_is_one_of_launch_too():
    rooms = ROOT / "launch", ROOT / "hlr_jax" / "programs"
    for folder in rooms:
        names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert names == set(programs.NAMES)
    for name in programs.NAMES:
        text = (ROOT / "launch" / f"{name}.py").read_text()
        assert f'programs.run("{name}")' in text
        assert len(text.splitlines()) <= 6


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_programs_are_listed_without_waiting_for_packages(arguments, environment, tmp_path):
    done = hlr_jax(environment, *arguments, python=("-X", "importtime"), cwd=tmp_path)
    assert done.returncode == 0
    listed = dict(
        line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")
    )
    assert listed == {name: text_of(name).splitlines()[0] for name in programs.NAMES}
    assert max(map(len, done.stdout.splitlines())) <= 100
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hlr_jax.programs" in imported
    assert not imported & {"absl", "jax", "ml_collections", "numpy", "polars"}


def test_a_list_may_be_read_in_part(environment):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "hlr_jax"],
        cwd=ROOT,
        env=environment,
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_version_is_said(environment):
    assert hlr_jax(environment, "--version").stdout == f"hlr-jax {__version__}\n"


def test_a_program_that_there_is_not_is_refused_in_one_line(environment):
    done = hlr_jax(environment, "trian", "--config=embedded/hlr")
    assert_refused(done, "hlr-jax trian: there is no such program; did you mean train?")
    assert_refused(hlr_jax(environment, "xyz"), "use one of train, evaluate, ")


@pytest.mark.parametrize("name", programs.NAMES)
def test_help(name, launch):
    done = launch(name, "-h")
    assert done.returncode == 0
    assert not done.stderr
    assert done.stdout.startswith(f"{text_of(name)}\n\n")
    assert f"  hlr-jax {name}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    flags = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --")]
    assert "--import=..." in flags
    assert ("--workdir=..." in flags) == (name not in ("compare", "fields", "cache"))
    reads_files = name in ("train", "sweep", "baseline", "demo")
    assert (shipped.describe() in done.stdout) == reads_files
    assert ("--config=..." in flags) == (name in ("train", "sweep", "baseline", "evaluate"))
    assert launch(name, "--help").stdout == done.stdout


def test_help_says_what_is_required_and_what_is_taken_else(launch):
    lines = launch("recommend", "--help").stdout.splitlines()
    assert "  --workdir=...  (required)" in lines
    assert "  --k=...  (default: 10)" in lines
    assert "  --[no]filter_seen  (default: true)" in lines
    assert "  --unknown=error|popular  (default: error)" in lines
    lines = launch("baseline", "--help").stdout.splitlines()
    assert f"  --name={'|'.join(baselines.METHODS)}  (required)" in lines
    assert "  --set=...  (may be repeated)" in lines


def test_missing_flags_are_named_together(launch, environment):
    for name, flags in {
        "train": "--config=.. and --workdir=..",
        "sweep": "--config=.. and --vary=.. and --workdir=..",
        "compare": "--runs=..",
        "export": "--output=.. and --workdir=..",
    }.items():
        line = f"error: give {flags}; see launch/{name}.py --help\n"
        assert launch(name).stderr == line
    done = hlr_jax(environment, "train", "--workdir=x")
    assert_refused(done, "give --config=..; see hlr-jax train --help")


# --- fields --------------------------------------------------------------------------------------


def test_all_settings_are_listed_and_who_has_more(launch):
    done = launch("fields")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for section, cls in SECTIONS.items():
        assert f"{section}: {cls.__doc__}" in lines
    at = lines.index("  training.epochs: int = 100")
    assert lines[at + 1] == "      Passes over the training interactions, at most."
    at = lines.index("These have settings of their own, which hlr-jax fields NAME lists:")
    words = set(" ".join(lines[at:]).split())
    for section in build.NAME_FIELDS:
        assert words >= set(build.registry(section).names())
    assert words >= baselines.METHODS.keys()


@pytest.mark.parametrize("section", build.NAME_FIELDS)
def test_settings_of_every_component_are_listed(section, capsys):
    found = build.registry(section)
    fields.main(found.names())
    lines = capsys.readouterr().out.splitlines()
    flag = f"--config.{section}.{build.NAME_FIELDS[section]}"
    heads = [f"{name}, a {found.kind}: {flag}={name}" for name in found.names()]
    for name, head in zip(found.names(), heads, strict=True):
        after = itertools.takewhile(lambda x: x not in heads, lines[lines.index(head) + 1 :])
        shown = [
            line.partition(":")[0].strip() for line in after if line.startswith(f"  {section}.")
        ]
        assert shown == [f"{section}.{option}" for option in build.options(section, name)]


def test_settings_of_sections_and_baselines_are_listed(capsys):
    fields.main(["sharding", *baselines.METHODS])
    lines = capsys.readouterr().out.splitlines()
    assert "  sharding.tables: str = 'replicated'" in lines
    at = lines.index("  regularization: float = 300.0")
    assert lines[at + 1] == "      λ of the paper, on the diagonal of the items' Gram matrix."
    assert "  It has none." in lines  # Most popular items.


def test_settings_of_what_there_is_not_are_refused_in_one_line(launch):
    fault = "fields hrl: there is no section or component of this name; did you mean hlr?"
    # A flag may stand after an argument.
    assert_refused(launch("fields", "hlr", "hrl", "--import=json"), fault)


# --- the wheel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what is in a wheel that is built from a source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("hlr_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=hidden)
    build_by("build_sdist", source, folder)
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), folder / "unpacked")
    build_by("build_wheel", next((folder / "unpacked").iterdir()), folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def build_by(step: str, source: pathlib.Path, output: pathlib.Path) -> None:
    code = f"from setuptools import build_meta; build_meta.{step}({str(output)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)


def test_a_wheel_has_the_programs_and_all_configurations(installed):
    (metadata,) = installed.glob("*.dist-info")
    entries = (metadata / "entry_points.txt").read_text()
    assert "[console_scripts]\nhlr-jax = hlr_jax.programs:main\n" in entries
    found = {path.relative_to(installed / "hlr_jax") for path in installed.rglob("*.py")}
    kept = {path.relative_to(shipped.FOLDER) for path in shipped.FOLDER.rglob("*.py")}
    assert found >= {pathlib.Path("configs") / path for path in kept}
    assert found >= {pathlib.Path("programs") / f"{name}.py" for name in programs.NAMES}
    assert {path.name for path in installed.iterdir()} == {"hlr_jax", metadata.name}


def test_an_installed_library_finds_its_configurations(installed, environment, tmp_path):
    done = hlr_jax(environment, "train", "--help", cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert shipped.describe() in done.stdout
    code = (
        "import hlr_jax.config as c; print(hlr_jax.__file__); "
        "print(c.load('ml_1m/hlr') == c.load('full_catalog/ml_1m/hlr')); "
        "print(c.load('tuned/gowalla/cml_256').model.dim)"  # It reads another file.
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import hlr_jax; {code}"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines() == [str(installed / "hlr_jax" / "__init__.py"), "True", "256"]

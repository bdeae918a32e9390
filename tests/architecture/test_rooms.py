"""The house rules: arrows one way, a drawing of today, files and functions of a size to read."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
MAX_PARAMETERS = 6


@pytest.fixture(scope="module")
def draw_rooms():
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs" / "draw_rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_rooms_import_each_other_in_one_direction(draw_rooms):
    draw_rooms.floors(draw_rooms.arrows())


def test_a_circle_is_found(draw_rooms):
    with pytest.raises(ValueError, match="a -> b -> a"):
        draw_rooms.floors({"a": {"b"}, "b": {"a"}})


def test_no_room_below_training_knows_of_runs_and_none_of_models_knows_of_devices(draw_rooms):
    arrows = draw_rooms.arrows()
    for room in ("functional", "kernels", "models"):
        assert not arrows[room] & {"config", "data", "parallel", "files", "training"}
    for room in ("data", "sampling", "parallel", "training", "evaluation"):
        assert not arrows[room] & {"runs", "tuning", "baselines", "cli"}


def test_the_drawing_is_of_todays_imports(draw_rooms):
    page = draw_rooms.PAGE.read_text(encoding="utf-8")
    assert draw_rooms.drawing() in page, "run python docs/draw_rooms.py"
    assert draw_rooms.redrawn(page) == page


def test_files_can_be_read_in_one_go():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in code_files("hlr_jax", "launch", "configs", "tests", "benchmarks", "docs")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_functions_of_the_library_have_few_parameters():
    many = {}
    for path in code_files("hlr_jax", "launch"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
                if len(names) > MAX_PARAMETERS:
                    many[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = len(names)
    assert not many


def test_no_module_collects_what_has_no_room():
    assert not [p for p in code_files("hlr_jax") if p.stem in ("utils", "util", "misc", "common")]


def test_documents_link_to_files_that_exist():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for target in {part.split(")")[0] for part in text.split("](")[1:]}:
            if "://" not in target and not target.startswith("#"):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_json_is_parsed_in_one_place():
    """Where its size, its depth and its kind are checked."""
    found = set()
    for path in code_files("hlr_jax", "launch"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("loads", "load"):
                if isinstance(node.value, ast.Name) and node.value.id == "json":
                    found.add(path.name)
            elif isinstance(node, ast.ImportFrom) and node.module == "json":
                found.add(path.name)
    assert found == {"files.py"}

"""Pages whose examples run as they stand, and commands that name what there is."""

import doctest
import functools
import pathlib
import re

import pytest

import hlr_jax
from hlr_jax import programs
from hlr_jax.config import shipped

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_PROSE = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


@pytest.mark.parametrize("page", ["coming.md", "recommending.md", "reliability.md", "tutorial.md"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=flags)
    assert outcome.attempted > 10
    assert not outcome.failed


def test_no_task_takes_more_lines_than_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "coming.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    preamble, tasks = blocks[0], list(zip(blocks[1::2], blocks[2::2], strict=True))
    assert len(tasks) == 7
    for elsewhere, here in tasks:
        assert elsewhere.startswith("# implicit\n")
        assert here.count(">>> ") <= elsewhere.count("\n") - 1
    pytest.importorskip("implicit", reason="implicit is not installed (the extra baselines)")
    import threadpoolctl

    names: dict[str, object] = {}
    exec("".join(re.findall(r">>> (.*\n)", preamble)), names)
    with threadpoolctl.threadpool_limits(1, "blas"):  # or it warns
        for elsewhere, _ in tasks:
            exec(elsewhere, names)
    assert len(names["why"]) == 2
    assert names["als"].user_factors.shape == (301, 32)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"hlr_jax\.(\w+\.\w+)\(", _PROSE))))
def test_names_that_pages_give_need_no_further_import(name):
    functools.reduce(getattr, name.split("."), hlr_jax)


def test_commands_name_programs_and_configurations_that_there_are():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "hlr_jax").rglob("*.py")]
    text = "\n".join(texts)
    named = set(re.findall(r"hlr-jax ([a-z]+) --?[a-z]", text))
    assert named == set(programs.NAMES) - {"fields"}
    for name in set(re.findall(r"--config=([\w/]+)", text)) - {"nowhere"}:
        shipped.find(name)

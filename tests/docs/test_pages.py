"""Pages whose examples run as they stand, and commands that name what there is."""

import doctest
import pathlib
import re

import pytest

from hlr_jax import programs
from hlr_jax.config import shipped

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", ["recommending.md", "reliability.md", "tutorial.md"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=flags)
    assert outcome.attempted > 10
    assert not outcome.failed


def test_commands_name_programs_and_configurations_that_there_are():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "hlr_jax").rglob("*.py")]
    text = "\n".join(texts)
    named = set(re.findall(r"hlr-jax ([a-z]+) --?[a-z]", text))
    assert named == set(programs.NAMES) - {"fields"}
    for name in set(re.findall(r"--config=([\w/]+)", text)) - {"nowhere"}:
        shipped.find(name)

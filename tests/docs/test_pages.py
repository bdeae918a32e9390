"""Pages whose examples run as they stand, and a page that lists what the benchmarks have."""

import doctest
import pathlib
import re

import pytest

import hlr_jax
from benchmarks.accuracy.protocols import PROTOCOLS

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", ["recommending.md", "reliability.md", "tutorial.md"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=flags)
    assert outcome.attempted > 10
    assert not outcome.failed


def test_every_protocol_is_described():
    page = (DOCS / "protocols.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## The protocols\n")
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`([\w-]+)`", " ".join(first))) == PROTOCOLS.keys()


def test_version_is_described_and_cited():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {hlr_jax.__version__} - " in changes
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {hlr_jax.__version__}\n" in citation

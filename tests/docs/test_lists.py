"""What pages list and cite is what there is."""

import re
from pathlib import Path

import hlr_jax
from benchmarks.accuracy.protocols import PROTOCOLS

ROOT = Path(__file__).parents[2]


def test_every_protocol_is_described():
    page = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## The protocols\n")
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`([\w-]+)`", " ".join(first))) == PROTOCOLS.keys()


def test_version_is_described_and_cited():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {hlr_jax.__version__} - " in changes
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {hlr_jax.__version__}\n" in citation

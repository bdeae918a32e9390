"""The components that the documents show keep their contracts."""

import importlib
import re
from pathlib import Path

import pytest

from hlr_jax import registry
from hlr_jax.testing import contracts_of

ROOT = Path(__file__).parents[2]
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("docs/extending.md",)}
EXAMPLES = [
    (page, number, block)
    for page, text in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    if "@register" in block
]


def test_every_kind_has_an_example():
    code = "".join(block for _, _, block in EXAMPLES)
    for kind in ("Relation", "Loss", "Geometry", "Sampler"):
        assert f"({kind}):" in code


@pytest.mark.parametrize(("page", "number", "block"), EXAMPLES)
def test_examples_of_the_documents_keep_their_contracts(page, number, block, tmp_path, monkeypatch):
    for section in ("model", "geometry", "loss", "sampling"):
        found = registry.find(section)
        monkeypatch.setattr(found, "_classes", dict(found._classes))
    name = f"shown_in_a_document_{number}"
    (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name)
    contracts = contracts_of(name)
    assert len(contracts) == 1
    contracts[0].run()

"""Links of the documents lead somewhere, in the repository and in what is made of it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# [text](target), but not in a code block.
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "docs", ROOT / "docs/reference", ROOT / "docs/notebooks")
    for path in (*folder.glob("*.md"), *folder.glob("*.ipynb"))
)


def text_of(page: Path) -> str:
    """The Markdown of a page, without its blocks of code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(x["source"]) for x in cells if x["cell_type"] == "markdown")
    return BLOCK.sub("", text)


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as viewers of repositories and the site make them."""
    headings = HEADING.findall(text_of(page))
    letters = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in letters}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files_and_headings(page):
    source = ROOT / page
    for link in LINK.findall(text_of(source)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (source.parent / path).resolve() if path else source
        assert target.is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_pages_are_looked_at():
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/reference/index.md"} < set(PAGES)
    assert "gowallas-validation-misleads" in anchors(ROOT / "docs/results.md")

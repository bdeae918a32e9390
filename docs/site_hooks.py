"""What MkDocs is told to build the site from these pages, which are read in the repository too.

- CONTRIBUTING.md and CHANGELOG.md are pages.
- A notebook is a page with the outputs that it holds; nothing is executed.
- A link that leaves this folder, to a plot of a benchmark or to a file of the library, leads to a
  copy of what it names.
- A Mermaid diagram is drawn, so that no reader's browser has to fetch a program for it.
"""

import pathlib
import posixpath
import re
from collections.abc import Iterator

import mermaidx
import nbconvert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE_OF = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}
SOURCE_OF = {page: source for source, page in PAGE_OF.items()}
# The folder of the site for copies of what is no page.
COPIES = "repository"
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)")
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no Markdown below docs/, and copies of what pages link to."""
    for source, page in PAGE_OF.items():
        text = (ROOT / "docs" / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        for file in _of_notebook(notebook, config):
            files.append(file)
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            target = _target(page.src_uri, link)
            if target.startswith(COPIES) and target not in files.src_uris:
                path = str(ROOT / target.removeprefix(f"{COPIES}/"))
                files.append(File.generated(config, target, abs_src_path=path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw diagrams, and lead links to where their targets are in the site."""
    uri = page.file.src_uri

    def led(link: re.Match[str]) -> str:
        return posixpath.relpath(_target(uri, link[0]), posixpath.dirname(uri) or ".")

    return LINK.sub(led, DIAGRAM.sub(_drawn, markdown))


def _target(page: str, link: str) -> str:
    """Find what a page of the site links to, from the root of the site."""
    folder = posixpath.dirname(SOURCE_OF.get(page, page))
    target = posixpath.normpath(posixpath.join(folder, link)).removeprefix("../docs/")
    target = PAGE_OF.get(target, target).removesuffix(".ipynb")
    target = f"{target}.md" if link.endswith(".ipynb") else target
    return re.sub(r"^\.\./", f"{COPIES}/", target)


def _of_notebook(notebook: File, config: MkDocsConfig) -> Iterator[File]:
    """The page of a notebook, and the images on it."""
    stem = notebook.src_uri.removesuffix(".ipynb")
    name = posixpath.basename(stem)
    text, found = nbconvert.MarkdownExporter().from_filename(
        notebook.abs_src_path, {"output_files_dir": f"{name}_outputs", "unique_key": name}
    )
    yield File.generated(config, f"{stem}.md", content=text)
    for image, content in found["outputs"].items():
        folder = posixpath.dirname(stem)
        yield File.generated(config, posixpath.join(folder, image), content=content)


def _drawn(diagram: re.Match[str]) -> str:
    svg = mermaidx.render(diagram[1], theme="neutral").svg()
    return f'<div class="diagram">{svg}</div>\n'

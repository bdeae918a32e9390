"""Run the notebooks of this folder, and keep what they show in them.

python docs/run_notebooks.py [NAME ...]     (as recommendations; without a name all of them)
"""

import pathlib
import sys
import tempfile

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parent / "notebooks"


def executed(path: pathlib.Path) -> nbformat.NotebookNode:
    """Run a notebook from beginning to end in a folder that is deleted; return it with outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            notebook, timeout=600, record_timing=False, resources={"metadata": {"path": folder}}
        ).execute()
    # Which Python ran it changes nothing for a reader.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(executed(path), path)

"""Damaged inputs in short, and those that ended in a traceback when there were many of them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.reliability.inputs import ROOT
from benchmarks.reliability.readers import READERS
from hlr_jax.comparison.folders import open_folder
from hlr_jax.config import plugins, shipped
from hlr_jax.data import features
from hlr_jax.data.readers import Columns, Dialect, read_table
from hlr_jax.data.registry import FeatureFile
from hlr_jax.errors import InputError

BASELINE = {
    "baseline": "ease",
    "seed": 1,
    "split_sizes": {"train": 1},
    "hyperparameters": {},
    "refit": False,
    "data": {"name": "embedded"},
    "test": {"protocol": "full"},
}


def of_baseline(folder, **changed):
    (folder / "results.json").write_text(json.dumps(BASELINE | changed))
    return open_folder(folder).data


def without_mark(folder):
    path = folder / "t.csv"
    path.write_bytes(b"user,item\n1,2\n")
    read_table(path, Columns(), "", Dialect(encoding="utf-16"))


def long_field(folder):
    path = folder / "f.csv"
    path.write_text('10,"' + "x" * 200_000 + '"\n')
    quoted = FeatureFile("f", "words", ",", first_field=1)
    features.read(path, quoted, np.array([10]))


FOUND = {
    "UTF-16 without a mark": without_mark,
    "a field longer than csv takes": long_field,
    "an unknown field": lambda folder: of_baseline(folder, data={"name": "embedded", "splitt": ""}),
    "a number beyond floats": lambda folder: of_baseline(
        folder, data={"name": "embedded", "min_rating": 10**400}
    ),
    "data of another type": lambda folder: of_baseline(folder, data=[1]),
    "no protocol": lambda folder: of_baseline(folder, test={}),
    "a long module": lambda _: plugins.load(["a" * 5000], plugins.FLAG),
    "a module on two lines": lambda _: plugins.load(["a\nb"], plugins.FLAG),
    "a long configuration": lambda _: shipped.find("a" * 5000),
    "a configuration on two lines": lambda _: shipped.find("a\r\nb"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_is_one_line(tmp_path, case):
    with pytest.raises(InputError) as caught:
        FOUND[case](tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_every_reader_reads_or_refuses(tmp_path):
    """Samples are read as they are, some hundred damaged ones refused or read."""
    command = [sys.executable, "-m", "benchmarks.reliability.inputs", "--inputs=600"]
    command += ["--requests=0", f"--out={tmp_path}", f"--kept={tmp_path / 'kept'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    kept = [path.read_text() for path in pathlib.Path(tmp_path / "kept").glob("*.txt")]
    assert done.returncode == 0, done.stdout + done.stderr + "\n".join(kept)
    found = json.loads((tmp_path / "reliability" / "inputs.json").read_text())
    assert found["readers"].keys() == READERS.keys()
    assert found["total"]["tried"] >= 590
    assert found["total"]["crashed"] == 0
    never = {name for name, counts in found["readers"].items() if not counts["read"]}
    # No module and no configuration of a damaged name is there.
    assert never <= {"import", "override", "saved model", "ncf"}

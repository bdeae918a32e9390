"""Damaged Parquet is refused in one line, and polars' own words stay away from the terminal."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

CORPUS = pathlib.Path(__file__).parents[1] / "corpus"

# Reads each file in turn, and says of each what became of it.
READ = """
import pathlib, sys
from hlr_jax.data.readers import Columns, read_table
from hlr_jax.errors import InputError
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print("read", read_table(path, Columns(rating="rating")).height)
    except InputError as error:
        text = str(error)
        assert text.startswith(str(path)) and chr(10) not in text, text
        print("refused", text.removeprefix(str(path))[:70])
print("here", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A folder of damaged files; the unharmed one is the first of them."""
    rng = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "user": [f"user {k % 40}" for k in range(400)],
            "item": rng.integers(0, 50, 400),
            "rating": rng.random(400),
        }
    )
    folder = tmp_path_factory.mktemp("damaged")
    frame.write_parquet(folder / "000.parquet", compression="snappy")
    whole = (folder / "000.parquet").read_bytes()
    cuts = rng.integers(1, len(whole), 3)
    for number, cut in enumerate(cuts):
        (folder / f"cut{number:03}.parquet").write_bytes(whole[:cut])
    # Some that end polars or the process, as found by benchmarks/reliability/inputs.py.
    for found in sorted(CORPUS.glob("*.parquet")):
        shutil.copy(found, folder / f"found-{found.name}")
    # The footer tells sizes and offsets: damage there crashes polars.
    for number in range(8):
        content = bytearray(whole)
        start = 4 if number % 2 else len(whole) - 900
        for place in rng.integers(start, len(whole) - 4, 3):
            content[place] = rng.integers(256)
        (folder / f"flip{number:03}.parquet").write_bytes(content)
    return folder


def test_nothing_but_our_line_is_said(damaged):
    command = [sys.executable, "-c", READ, str(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "here\n"
    lines = done.stdout.splitlines()
    assert len(lines) == 16
    assert sum("(polars crashes on it" in line for line in lines) >= 4
    assert lines[0] == "read 400"
    assert sum(line.startswith("refused : not a readable Parquet file") for line in lines) >= 10

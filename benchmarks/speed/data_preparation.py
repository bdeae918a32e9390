"""Time and memory of data preparation: read, filter, merge, 10-core, encode, split.

Writes a table of made-up, skewed interactions, prepares it in a process of its own, and prints
rows, seconds, rows per second and peak memory of each stage (rows are those that go in):

  python -m benchmarks.speed.data_preparation --rows=20000000
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from absl import app, flags

from benchmarks import output, own_process, quick, report
from hlr_jax.data import preprocessing, readers, splits

_ROWS = flags.DEFINE_integer("rows", 20_000_000, "Interactions in the table.", lower_bound=100_000)
_FOLDER = flags.DEFINE_string("folder", None, "Where the table is put for a while.")
_TABLE = flags.DEFINE_string("table", None, "For the measuring process: prepare this table.")

# The rarest users and items have about a dozen rows, so that the 10-core takes several rounds
# to settle; some pairs are there more than once.
_ROWS_PER_USER, _ROWS_PER_ITEM = 24, 40
_SEED = 2021


def _ids(rng: np.random.Generator, rows: int, number: int, exponent: float) -> np.ndarray:
    """Draw `[rows]` ids from 1, the first ones far more often: a power of a uniform draw."""
    return (number * rng.random(rows) ** exponent).astype(np.int64) + 1


def write_table(path: str, rows: int) -> None:
    """Write `rows` skewed interactions with half-star ratings and seconds, as ML-20M has them."""
    rng = np.random.default_rng(_SEED)
    with open(path, "wb") as file:
        for start in range(0, rows, 2_000_000):
            size = min(2_000_000, rows - start)
            pl.DataFrame(
                {
                    "userId": _ids(rng, size, max(rows // _ROWS_PER_USER, 10), 2.0),
                    "movieId": _ids(rng, size, max(rows // _ROWS_PER_ITEM, 10), 3.0),
                    "rating": rng.integers(1, 11, size) / 2,
                    "timestamp": rng.integers(789_652_004, 1_427_784_002, size),
                }
            ).write_csv(file, include_header=start == 0)


def measure(path: str) -> list[dict[str, Any]]:
    """Prepare the table, and return a row of figures for each stage."""
    stages: list[dict[str, Any]] = []

    def timed(stage: str, rows_in: int | None, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        rows = rows_in if rows_in is not None else result.height
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        stages.append(
            {"stage": stage, "rows": rows, "seconds": seconds, "peak_gib": peak}
            | {"rows_per_second": rows / seconds}
        )
        return result

    columns = readers.Columns("userId", "movieId", "rating", "timestamp")
    frame = timed("read", None, lambda: readers.read_table(path, columns))
    # Every stage after the filter works on the rows rated 1 or more: 90 %.
    frame = timed("filter", frame.height, lambda: preprocessing.keep_rated(frame, 1.0))
    frame = timed("merge", frame.height, lambda: preprocessing.merge_duplicates(frame))
    frame = timed("10-core", frame.height, lambda: preprocessing.k_core(frame, 10, 10))
    encoded = timed("encode", frame.height, lambda: preprocessing.encode(frame))
    rows = len(encoded.users)
    timed("split", rows, lambda: splits.random_split(rows, 0.08, 0.2, _SEED))
    return stages


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(rows=200_000)
    if _TABLE.value:
        json.dump(measure(_TABLE.value), sys.stdout)
        return
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
        path = os.path.join(folder, "ratings.csv")
        write_table(path, _ROWS.value)
        size = os.path.getsize(path)
        stages = own_process.run(
            "benchmarks.speed.data_preparation", f"--table={os.path.abspath(path)}"
        )
    total = sum(stage["seconds"] for stage in stages)
    peak = max(stage["peak_gib"] for stage in stages)
    print(f"{'stage':10}{'rows':>12}{'seconds':>10}{'rows/s':>14}{'peak GiB':>10}")
    for stage in stages:
        print(
            f"{stage['stage']:10}{stage['rows']:12,}{stage['seconds']:10.2f}"
            f"{stage['rows_per_second']:14,.0f}{stage['peak_gib']:10.2f}"
        )
    print(f"{'total':10}{_ROWS.value:12,}{total:10.2f}{_ROWS.value / total:14,.0f}{peak:10.2f}")
    result = {
        "rows": _ROWS.value,
        "bytes": size,
        "seconds": total,
        "peak_gib": peak,
        "stages": stages,
        **report.provenance("numpy", "polars"),
    }
    output.write("data_preparation.json", result)


if __name__ == "__main__":
    app.run(main)

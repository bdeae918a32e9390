"""Read Parquet tables."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import polars as pl

from hlr_jax.data.readers.columns import Table
from hlr_jax.data.readers.dialects import Dialect
from hlr_jax.errors import InputError

# Reads what is asked for, in a process of its own.
_TRIAL = """
import sys
import polars
path, *names = sys.argv[1:]
with open(path, "rb") as file:
    present = polars.read_parquet_schema(file)
polars.read_parquet(path, columns=[name for name in names if name in present], glob=False)
"""


def read_parquet(path: str, names: Mapping[str, str], dialect: Dialect) -> pl.DataFrame:
    """Read some columns; `names` has their names by role. See `read_table`."""
    _check_readable(path, [*names.values()])
    # An open file, because polars takes some paths for patterns or addresses.
    with open(path, "rb") as file:
        present = pl.read_parquet_schema(file)
    for role, name in names.items():
        if name not in present:
            raise InputError(
                f"{path}: {role} column {name!r} is not among {', '.join(present)}; "
                "name one of these"
            )
    frame = pl.read_parquet(os.path.abspath(path), columns=[*names.values()], glob=False)
    table = Table(path, names, dialect=dialect)
    table.add(
        pl.DataFrame(
            {role: _plain(path, role, frame.get_column(name)) for role, name in names.items()}
        ),
        lambda row: f"{path} row {row + 1}",
    )
    return table.finish()


def _check_readable(path: str, names: Sequence[str]) -> None:
    """Read columns in another process first, which costs a third of a second and as long again.

    A damaged file can tell of lengths that no memory has, for which polars ends the process, or
    make it crash with pages of words past `sys.stderr`. This process has to live on.

    Raises:
      InputError: polars cannot read them.
    """
    if not sys.executable:
        return  # A Python within another program.
    # Nothing is imported from the working directory.
    command = [sys.executable, "-P", "-c", _TRIAL, os.path.abspath(path), *names]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not done.returncode:
        return
    error = (done.stderr.strip().splitlines() or [""])[-1]
    detail = error.partition(": ")[2][:200] or error[:200]
    if done.returncode < 0 or "PanicException" in error:
        signal_number = f", by signal {-done.returncode}" if done.returncode < 0 else ""
        detail = f"polars crashes on it{signal_number}"
    raise InputError(f"{path}: not a readable Parquet file ({detail}); write it again")


def _plain(path: str, role: str, values: pl.Series) -> pl.Series:
    """Convert a column to what `Table` accepts: integers, text, or floats for numbers."""
    dtype = values.dtype
    if dtype.is_integer() or isinstance(dtype, pl.String):
        return values
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return values.cast(pl.String)
    if dtype.is_float() and role in ("rating", "timestamp"):
        return values
    if dtype.is_float():
        # As pandas writes integers where some are missing; what is missing has a row to name.
        whole = values.fill_nan(None)
        if ((whole == whole.floor()) & (whole.abs() <= 2.0**53)).all():
            return whole.cast(pl.Int64)
    if isinstance(dtype, pl.Date | pl.Datetime) and role == "timestamp":
        return values
    if isinstance(dtype, pl.Decimal) and role == "rating":
        return values.cast(pl.Float64)
    wanted = {"rating": "numbers", "timestamp": "dates or whole seconds"}.get(
        role, "integers or strings"
    )
    raise InputError(
        f"{path}: {role} column {values.name!r} holds {dtype} values; convert them to {wanted}"
    )

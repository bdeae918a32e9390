"""Read Parquet tables."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping

import polars as pl

from hlr_jax.data.readers.columns import Table
from hlr_jax.data.readers.dialects import Dialect
from hlr_jax.errors import InputError

# Some damage leads to sizes that no memory has, some to a crash within polars: its exception is no
# `Exception`, whether it is polars' own or that of the layer between Rust and Python.
_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    ValueError,
    OverflowError,
    MemoryError,
)


def read_parquet(path: str, names: Mapping[str, str], dialect: Dialect) -> pl.DataFrame:
    """Read some columns; `names` has their names by role. See `read_table`."""
    try:
        # An open file, because polars takes some paths for patterns or addresses.
        with _silenced(), open(path, "rb") as file:
            present = pl.read_parquet_schema(file)
        for role, name in names.items():
            if name not in present:
                raise InputError(
                    f"{path}: {role} column {name!r} is not among {', '.join(present)}; "
                    "name one of these"
                )
        with _silenced():
            frame = pl.read_parquet(os.path.abspath(path), columns=[*names.values()], glob=False)
    except InputError:
        raise
    except _UNREADABLE as error:
        is_crash = isinstance(error, pl.exceptions.PanicException)
        detail = "polars crashes on it" if is_crash else " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a readable Parquet file ({detail}); write it again"
        ) from None
    table = Table(path, names, dialect=dialect)
    table.add(
        pl.DataFrame(
            {role: _plain(path, role, frame.get_column(name)) for role, name in names.items()}
        ),
        lambda row: f"{path} row {row + 1}",
    )
    return table.finish()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep from people what polars writes about its own crash on a damaged file.

    It goes to descriptor 2 from threads of polars, past `sys.stderr`. So the descriptor leads into
    a file meanwhile, for all threads of the process: what another one says in these moments comes
    afterwards, and is lost where the file is damaged.
    """
    try:
        terminal = os.dup(2)
    except OSError:
        # There is nobody to be spared.
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
        said.seek(0)
        if words := said.read():
            os.write(2, words)


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

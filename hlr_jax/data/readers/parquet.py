"""Read Parquet tables."""

import os
from collections.abc import Mapping

import polars as pl

from hlr_jax.data.readers.columns import Table
from hlr_jax.errors import InputError


def read_parquet(path: str, names: Mapping[str, str]) -> pl.DataFrame:
    """Read some columns; `names` has their names by role. See `read_table`."""
    try:
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
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        detail = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: not a readable Parquet file ({detail}); write it again"
        ) from None
    table = Table(path, names)
    table.add(
        pl.DataFrame(
            {role: _plain(path, role, frame.get_column(name)) for role, name in names.items()}
        ),
        lambda row: f"{path} row {row + 1}",
    )
    return table.finish()


def _plain(path: str, role: str, values: pl.Series) -> pl.Series:
    """Convert a column to what `Table` accepts: integers, text, or floats for numbers."""
    dtype = values.dtype
    if dtype.is_integer() or isinstance(dtype, pl.String):
        return values
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return values.cast(pl.String)
    if dtype.is_float() and role in ("rating", "timestamp"):
        return values
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

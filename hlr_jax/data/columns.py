"""Take columns out of data frames of any library, and check those that hold ids."""

import datetime
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hlr_jax.data.readers.columns import MAX_ID
from hlr_jax.errors import InputError

# What an id may be besides an integer or a text; it becomes the text that `str` gives.
_NAMED = (uuid.UUID, datetime.date, tuple)


def columns(frame: Any, roles: Mapping[str, str]) -> dict[str, pl.Series]:
    """Take columns out of a frame.

    Args:
      frame: of polars or pandas, whatever exports itself as an Arrow stream or by the data frame
        interchange protocol, or a mapping from names to sequences.
      roles: names of columns by role.

    Raises:
      InputError: it is no frame, or a column is missing or of another length.
    """
    frame = _opened(frame)
    present = _names(frame)
    for role, name in roles.items():
        found = present.count(name)
        if found != 1:
            fault = "is there more than once" if found else "is not there"
            listed = ", ".join(map(str, present))
            raise InputError(f"{role}={name!r}: the column {fault}; the frame has {listed}")
    series = {role: _series(role, frame[name]) for role, name in roles.items()}
    lengths = {role: len(values) for role, values in series.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{role} {length}" for role, length in lengths.items())
        raise InputError(f"columns have different lengths ({listed}); give each row all of them")
    return series


def every_column(frame: Any) -> dict[str, pl.Series]:
    """Take all columns out of a frame, by name; see `columns`."""
    frame = _opened(frame)
    return columns(frame, {str(name): name for name in _names(frame)})


def _opened(frame: Any) -> Any:
    """Make a frame of polars of what is none of pandas and no mapping."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    is_pandas = type(frame).__module__.partition(".")[0] == "pandas"
    if is_pandas or isinstance(frame, pl.DataFrame | Mapping):
        return frame
    return _as_polars(frame)


def _names(frame: Any) -> list[Any]:
    return list(frame) if isinstance(frame, Mapping) else list(frame.columns)


def _as_polars(frame: Any) -> pl.DataFrame:
    try:
        if hasattr(frame, "__arrow_c_stream__"):
            return pl.DataFrame(frame)
        if hasattr(frame, "__dataframe__"):
            from pyarrow.interchange import from_dataframe

            return pl.DataFrame(from_dataframe(frame))
    except ImportError:
        raise InputError(
            f"the {type(frame).__name__} does not export Arrow, so that pip install pyarrow is "
            "needed to read it"
        ) from None
    except (TypeError, ValueError, RuntimeError, pl.exceptions.PolarsError) as error:
        detail = (str(error).splitlines() or [""])[0]
        raise InputError(f"the {type(frame).__name__} cannot be read ({detail})") from None
    raise InputError(
        f"{type(frame).__name__} is no data frame; give one of polars, pandas or whatever "
        "exports Arrow, or a dict of columns"
    )


def _series(role: str, values: Any) -> pl.Series:
    """Convert a column to a series; what pandas holds as objects, value by value."""
    if isinstance(values, pl.Series):
        return values.alias(role)
    if type(values).__module__.partition(".")[0] == "pandas":
        dtype = values.dtype
        if getattr(dtype, "tz", None) is not None:
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        elif not isinstance(dtype, np.dtype) or dtype.kind not in "iufbM":
            missing = values.isna().to_numpy()
            objects = values.astype(object).to_list()
            values = [None if gone else x for gone, x in zip(missing, objects, strict=True)]
        else:
            values = values.to_numpy()
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUV":
        if values.ndim != 1:
            raise InputError(f"{role}: has the shape {values.shape}; give one value for each row")
        if values.dtype.kind == "M":
            values = values.astype("datetime64[us]")
        return pl.Series(role, values)
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return _of_objects(role, plain)


def _of_objects(role: str, values: list[Any]) -> pl.Series:
    """Make a series of Python values of one kind: whole numbers, numbers, texts or dates."""
    values = [x.item() if isinstance(x, np.generic) else x for x in values]
    present = [x for x in values if x is not None]
    kinds = {type(x) for x in present}
    if role in ("user", "item") and kinds and all(issubclass(kind, _NAMED) for kind in kinds):
        return pl.Series(role, [None if x is None else str(x) for x in values], pl.String)
    if kinds - {float, int} and len(kinds) > 1 and not all(issubclass(k, str) for k in kinds):
        row, value = next((i, x) for i, x in enumerate(values) if type(x) is not type(present[0]))
        raise InputError(
            f"the frame, row {row}: {role} {value!r} is of another type than {present[0]!r}; "
            "convert the column to one type"
        )
    try:
        return pl.Series(role, values, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise InputError(
            f"{role}: values like {present[0]!r} cannot be read; convert them to text or numbers"
        ) from None


def column(role: str, values: pl.Series) -> pl.Series:
    """Check a column of ids, and convert it to Int64 or String.

    Texts stay texts, also where they look like numbers. Whole floats become integers, dates and
    categories texts.

    Raises:
      InputError: an id is missing, negative or too large, or the type is none of ids.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.Date | pl.Datetime):
        values = values.cast(pl.String)
    elif dtype.is_float():
        missing = values.is_null() | values.is_nan()
        _refuse(role, values, missing, "is missing; give every row an id")
        broken = ~values.is_finite() | (values != values.floor()) | (values.abs() > 2.0**53)
        _refuse(role, values, broken, "is no whole number; convert ids to integers or text")
        values = values.cast(pl.Int64)
    _refuse(role, values, values.is_null(), "is missing; give every row an id")
    if values.dtype.is_integer():
        wrong = values.cast(pl.Int64, strict=False).fill_null(-1) < 0
        _refuse(role, values, wrong, f"is outside 0..{MAX_ID}; convert ids to text")
        return values.cast(pl.Int64)
    if values.dtype != pl.String:
        raise InputError(
            f"{role}: the column holds {values.dtype} values; convert ids to integers or text"
        )
    _refuse(role, values, values.str.strip_chars() == "", "is empty; give every row an id")
    _refuse(role, values, values.str.contains("\0", literal=True), "has a NUL byte; leave it out")
    return values


def _refuse(role: str, values: pl.Series, wrong: pl.Series, fault: str) -> None:
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise InputError(f"the frame, row {row}: {role} {values[row]!r} {fault}")

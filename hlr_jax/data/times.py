"""Times as numbers that keep their order: as they are, or microseconds of dates."""

import polars as pl

# Dates without a time of day, then times of day without and with a zone. What has none is UTC.
_ISO = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%:z")


def numbers(values: pl.Series) -> pl.Series:
    """Convert to Int64, or Float64 if a number has a fraction; what is no number to null."""
    if not values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        if not whole.has_nulls():
            return whole
    floats = values.cast(pl.Float64, strict=False)
    floats = floats.set(~floats.is_finite().fill_null(False), None)
    is_whole = (floats == floats.floor()) & (floats.abs() < 2.0**63)
    if not is_whole.fill_null(True).all():
        return floats
    rounded = floats.cast(pl.Int64)
    return rounded if values.dtype.is_float() else whole.zip_with(whole.is_not_null(), rounded)


def dates(values: pl.Series) -> pl.Series:
    """Convert dates, or texts as ISO 8601 has them, to Int64 microseconds since 1970.

    Returns:
      Null where a text is no date.
    """
    if values.dtype.is_temporal():
        return _microseconds(values)
    text = values.cast(pl.String).str.strip_chars()
    text = text.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    found = _microseconds(text.str.to_date("%Y-%m-%d", strict=False))
    for form in _ISO:
        parsed = text.str.to_datetime(form, time_unit="us", strict=False)
        found = found.zip_with(found.is_not_null(), _microseconds(parsed))
    return found


def _microseconds(values: pl.Series) -> pl.Series:
    zone = getattr(values.dtype, "time_zone", None)
    return values.cast(pl.Datetime("us", zone)).to_physical()

"""Titles of items, which public data sets keep in files of many forms."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hlr_jax.data.registry import TitleFile
from hlr_jax.errors import InputError
from hlr_jax.files import parse_json


def read(path: pathlib.Path, form: TitleFile) -> dict[str, str]:
    """Read titles by raw item id; lines that have none are skipped.

    Args:
      path: the file.
      form: how it is written.

    Raises:
      InputError: the file cannot be read.
    """
    titles = {}
    try:
        with open(path, encoding=form.encoding, errors="replace", newline="") as file:
            lines = iter(file)
            if form.header:
                next(lines, None)
            # Only comma-separated tables quote their fields.
            rows = csv.reader(lines) if form.separator == "," else map(str.rstrip, lines)
            fields: dict[int | str, Any]
            for number, row in enumerate(rows, 1 + form.header):
                if not isinstance(row, str):
                    fields = {**dict(enumerate(row))}
                elif form.separator == "json":
                    fields = parse_json(row, f"{path} line {number}", dict, "fetch the file again")
                else:
                    fields = _split(row, form)
                if form.item in fields and form.title in fields:
                    titles[str(fields[form.item])] = " ".join(str(fields[form.title]).split())
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        detail = " ".join(str(error).split())
        raise InputError(
            f"{path}: item titles cannot be read ({detail}); fetch the file again"
        ) from None
    return titles


def _split(line: str, form: TitleFile) -> dict[int | str, str]:
    return dict(enumerate(line.split(form.separator)))


def of_items(known: Mapping[str, str], item_ids: np.ndarray) -> np.ndarray | None:
    """Return `[I]` titles of items, "" if unknown; None if no title is known."""
    found = [known.get(str(item), "") for item in item_ids.tolist()]
    return np.array(found, np.str_) if any(found) else None

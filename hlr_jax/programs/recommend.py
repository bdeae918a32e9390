"""Recommend items to users with a trained model or a baseline.

  hlr-jax recommend --workdir=runs/hlr --users=1,2 --k=10
  hlr-jax recommend --workdir=runs/hlr --users=all --k=10 --output=top10.parquet
  hlr-jax recommend --workdir=model.safetensors --users=7 --items=3,5,9 --unknown=popular
  hlr-jax recommend --workdir=runs/hlr --history=3,5,9   (somebody who is not known)

Users and items have the ids of the data set's files. Items that a user has in training, validation
or test are not recommended again.
"""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from hlr_jax import cli
from hlr_jax.errors import InputError

if TYPE_CHECKING:
    from hlr_jax.runs.verbs import FiltersForHistory

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder that hlr-jax train or hlr-jax baseline wrote, or a saved model.",
    required=True,
)
_USERS = flags.DEFINE_list(
    "users", None, "User ids, separated by commas; or all that were trained on."
)
_HISTORY = flags.DEFINE_list(
    "history", None, "Item ids of somebody who is not among the users, the oldest first."
)
_ITEMS = flags.DEFINE_list("items", None, "Candidates: item ids; all if left out.")
_EXCLUDE = flags.DEFINE_list("exclude", None, "Item ids that nobody is recommended.")
_SEEN = flags.DEFINE_bool("filter_seen", True, "Leave out what a user has.")
_UNKNOWN = flags.DEFINE_enum(
    "unknown", "error", ["error", "popular"], "For users that were not trained on."
)
_K = flags.DEFINE_integer("k", 10, "Items per user.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Write a .csv, .parquet or .jsonl file instead of printing a table."
)


def main() -> None:
    """Recommend, then print or write."""
    import polars as pl

    from hlr_jax import baselines, files

    writers: dict[str, Callable[[pl.DataFrame, pathlib.Path], Any]] = {
        ".csv": pl.DataFrame.write_csv,
        ".parquet": pl.DataFrame.write_parquet,
        ".jsonl": pl.DataFrame.write_ndjson,
    }
    output = _OUTPUT.value and cli.output_file("output", _OUTPUT.value, list(writers))
    if bool(_USERS.value) == bool(_HISTORY.value):
        raise InputError("give either --users (ids separated by commas, or all) or --history")
    recommender = baselines.load(_WORKDIR.value)
    filters: FiltersForHistory = {
        "items": _ITEMS.value,
        "exclude": _EXCLUDE.value,
        "filter_seen": _SEEN.value,
        "unknown": _UNKNOWN.value,
    }
    if _HISTORY.value:
        table = recommender.recommend_for(_HISTORY.value, _K.value, **filters)
    else:
        everybody = _USERS.value == ["all"]
        users = recommender.known_users if everybody else _USERS.value
        table = recommender.recommend(users, _K.value, **filters)
    if output:
        with files.replacing(output) as unfinished:
            writers[output.suffix](table, unfinished)
        cli.say(f"{len(table)} recommendations written to {output}")
        return
    cli.say(cli.plain(table))

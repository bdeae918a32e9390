"""Recommend items to users with a trained model or a baseline.

  python launch/recommend.py --workdir=runs/hlr --users=1,2 --k=10
  python launch/recommend.py --workdir=runs/hlr --users=all --k=10 --output=top10.parquet
  python launch/recommend.py --workdir=model.safetensors --users=7 --items=3,5,9 --unknown=popular
  python launch/recommend.py --workdir=runs/hlr --history=3,5,9   (somebody who is not known)

Users and items have the ids of the data set's files. Items that a user has in training, validation
or test are not recommended again.
"""

from typing import TYPE_CHECKING

from absl import flags

from hlr_jax import cli
from hlr_jax.errors import InputError

if TYPE_CHECKING:
    from hlr_jax.runs.verbs import Filters

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder that launch/train.py or launch/baseline.py wrote, or a saved model.",
    required=True,
)
_USERS = flags.DEFINE_list(
    "users", None, "User ids, separated by commas; or all that were trained on."
)
_HISTORY = flags.DEFINE_list("history", None, "Item ids of somebody who is not among the users.")
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

    writers = {
        ".csv": pl.DataFrame.write_csv,
        ".parquet": pl.DataFrame.write_parquet,
        ".jsonl": pl.DataFrame.write_ndjson,
    }
    output = _OUTPUT.value and cli.output_file("output", _OUTPUT.value, list(writers))
    if bool(_USERS.value) == bool(_HISTORY.value):
        raise InputError("give either --users (ids separated by commas, or all) or --history")
    recommender = baselines.load(_WORKDIR.value)
    filters: Filters = {
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
        print(f"{len(table)} recommendations written to {output}")
        return
    print(cli.plain(table))


if __name__ == "__main__":
    cli.run(main)

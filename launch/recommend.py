"""Recommend items to users with a trained model.

  python launch/recommend.py --workdir=runs/hlr --users=1,2 --k=10
  python launch/recommend.py --workdir=runs/hlr --users=all --k=10 --output=top10.parquet

Users have the ids of the data set's files. Items that a user has in training or validation are not
recommended again.
"""

from absl import flags

from hlr_jax import cli
from hlr_jax.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that launch/train.py wrote.", required=True)
_USERS = flags.DEFINE_list("users", None, "User ids, separated by commas; or all.", required=True)
_K = flags.DEFINE_integer("k", 10, "Items per user.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Write a .csv, .parquet or .jsonl file instead of printing a table."
)


def main() -> None:
    """Recommend, then print or write."""
    import polars as pl

    from hlr_jax import files
    from hlr_jax.runs.recommender import Recommender

    writers = {
        ".csv": pl.DataFrame.write_csv,
        ".parquet": pl.DataFrame.write_parquet,
        ".jsonl": pl.DataFrame.write_ndjson,
    }
    output = _OUTPUT.value and cli.output_file("output", _OUTPUT.value, list(writers))
    if not any(_USERS.value):
        raise InputError("--users=: give user ids separated by commas, or all")
    recommender = Recommender.load(_WORKDIR.value)
    users = recommender.dataset.user_ids if _USERS.value == ["all"] else _USERS.value
    table = recommender.recommend(users, _K.value)
    if output:
        with files.replacing(output) as unfinished:
            writers[output.suffix](table, unfinished)
        print(f"{len(table)} recommendations written to {output}")
        return
    print(cli.plain(table))


if __name__ == "__main__":
    cli.run(main)

"""Write a page about a model: how it was trained, how good it is, what it recommends.

  hlr-jax report --workdir=runs/hlr
  hlr-jax report --workdir=hlr.safetensors --output=report.html --groups=genres.csv

The page is one file that needs nothing else, by default report.html in the run's folder. The map of
the items is coloured by their genres, if the data set's own files are here and have them; --groups
names a table with a header whose columns are an item's id and its group instead. Needs
pip install 'hlr_jax[report]'.
"""

import pathlib

from absl import flags

from hlr_jax import cli

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that hlr-jax train wrote, or a saved model.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The .html file to write; report.html in the run's folder by default."
)
_GROUPS = flags.DEFINE_string("groups", None, "A .csv file with items and their groups.")


def main() -> None:
    """Measure and write."""
    from hlr_jax.errors import InputError
    from hlr_jax.reporting import report
    from hlr_jax.runs.recommender import Recommender

    workdir = _WORKDIR.value if pathlib.Path(_WORKDIR.value).is_dir() else None
    if _OUTPUT.value is None and workdir is None:
        raise InputError("--output: name the .html file to write; this model is not in a folder")
    output = cli.output_file("output", _OUTPUT.value or f"{workdir}/report.html", [".html"])
    groups = None if _GROUPS.value is None else _read(_GROUPS.value)
    report(Recommender.load(_WORKDIR.value), output, workdir, groups)
    cli.say(f"written to {output}")


def _read(path: str) -> dict[str, str]:
    import polars as pl

    from hlr_jax.errors import InputError

    try:
        table = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"--groups={path}: cannot be read ({str(error).splitlines()[0]})"
        ) from None
    if table.width < 2:
        raise InputError(f"--groups={path}: give two columns, of items and their groups")
    twice = table[:, 0].is_duplicated()
    if twice.any():
        item = table[:, 0].filter(twice)[0]
        raise InputError(f"--groups={path}: item {item} has several rows; give each item one")
    return dict(zip(table[:, 0].to_list(), table[:, 1].fill_null("unknown").to_list(), strict=True))

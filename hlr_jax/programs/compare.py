r"""Compare models and baselines user by user: which differences are more than chance?

  hlr-jax compare --runs=runs/cml,runs/hlr,runs/mine --figure=compare.png
  hlr-jax compare --runs=runs/cml_1,runs/cml_2,runs/mine_1,runs/mine_2 \
    --baselines=runs/ease --split=valid --metrics=ndcg@10,recall@20 --output=runs/compared

Runs that differ in their seed alone count as one, each user with the mean over seeds. The others
are tested against the first run (--against=NAME for another, --against=all for all pairs) by
two-sided paired t-tests over users, with Holm's correction for the number of tests in a metric.
Decide by the first metric, and choose it before you look. Models trained on validation too
(config.training.refit) are compared with their like only.
"""

import pathlib

from absl import flags

from hlr_jax import cli
from hlr_jax.errors import InputError

_RUNS = flags.DEFINE_list(
    "runs", None, "Folders that hlr-jax train wrote, separated by commas.", required=True
)
_BASELINES = flags.DEFINE_list("baselines", [], "Folders that hlr-jax baseline wrote.")
_SPLIT = flags.DEFINE_enum("split", "test", ["valid", "test"], "Interactions to measure on.")
_METRICS = flags.DEFINE_list(
    "metrics", [], "Metrics with cutoffs; by default ndcg@10 and recall@10 (or hit_rate@10)."
)
_AGAINST = flags.DEFINE_string(
    "against", "", "What to test the others against: a name of the table, a folder, or all."
)
_REFITTED = flags.DEFINE_bool(
    "refitted", True, "On test, measure refitted models; else those selected on validation."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "A .json file of everything, with a .csv beside it; or a folder for both."
)
_FIGURE = flags.DEFINE_string("figure", None, "A .png, .pdf or .svg file to draw.")


def main() -> None:
    """Compare, print and write."""
    from hlr_jax.comparison import compare

    output = _OUTPUT.value and _json_file(_OUTPUT.value)
    figure = _FIGURE.value and cli.output_file("figure", _FIGURE.value, [".png", ".pdf", ".svg"])
    if figure:
        from hlr_jax.comparison import figure as _  # noqa: F401 - is matplotlib there?
    folders = [*_RUNS.value, *_BASELINES.value]
    found = compare(folders, _SPLIT.value, _METRICS.value, _AGAINST.value, _REFITTED.value)
    cli.say(cli.plain(found.means_table()))
    cli.say(f"\n{cli.plain(found.tests_table())}\n\n{found.caption}\n")
    if output:
        output.parent.mkdir(exist_ok=True)
        found.write(output)
        cli.say(f"written to {output} and {output.with_suffix('.csv')}")
    if figure:
        found.draw(figure)
        cli.say(f"drawn to {figure}")
    cli.say("\n".join(found.verdicts))


def _json_file(path: str) -> pathlib.Path:
    """Return the file to write, in the folder if a folder is named."""
    named = pathlib.Path(path)
    if named.is_dir() or not named.suffix:
        if named.is_file():
            raise InputError(f"--output={path}: is a file; end it in .json, or name a folder")
        cli.output_file("output", str(named.with_suffix(".json")), [".json"])
        return named / "compare.json"
    return cli.output_file("output", path, [".json"])

"""Measure a trained model.

  hlr-jax evaluate --workdir=runs/hlr
  hlr-jax evaluate --workdir=runs/hlr --split=valid --config.evaluation.cutoffs="(5,20)"

The fields of config.evaluation, which `hlr-jax fields evaluation` explains, can be changed by
flags; everything else stays as the model was trained. With --diagnose a line says whether the
relation is one, or a constant (docs/extending.md).
"""

from absl import flags
from ml_collections import config_flags

from hlr_jax import cli, config
from hlr_jax.config import EvaluationConfig

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that hlr-jax train wrote.", required=True)
_SPLIT = flags.DEFINE_enum("split", "test", ["valid", "test"], "Interactions to measure on.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the metrics to as well.")
_ALL_METRICS = cli.define_all_metrics()
_DIAGNOSE = flags.DEFINE_bool("diagnose", False, "Say also how the relation differs between pairs.")
_CONFIG = cli.defined(
    lambda: config_flags.DEFINE_config_dict(
        "config",
        config.section_config_dict("evaluation", EvaluationConfig()),
        "Begins --config.evaluation.FIELD=VALUE, a changed setting; it has no value itself.",
    )
)


def main() -> None:
    """Evaluate and print."""
    from hlr_jax import files
    from hlr_jax.parallel import processes
    from hlr_jax.runs.diagnosis import diagnose
    from hlr_jax.runs.recommender import Recommender

    output = _OUTPUT.value and cli.output_file("output", _OUTPUT.value, [".json"])
    changes = config_flags.get_override_values(flags.FLAGS["config"])
    fields = {name.removeprefix("evaluation."): value for name, value in changes.items()}
    # A model that was refitted on validation is not measured there.
    loaded = Recommender.load(_WORKDIR.value, refitted=_SPLIT.value == "test")
    recommender = loaded.with_evaluation(**fields)
    relation = [str(diagnose(recommender))] if _DIAGNOSE.value else []
    summary = recommender.evaluate(_SPLIT.value, show_progress=True)
    cli.say(cli.measured({_SPLIT.value: summary}, _ALL_METRICS.value))
    for line in relation:
        cli.say(line)
    if output and processes.is_first():
        files.write_json(output, summary)

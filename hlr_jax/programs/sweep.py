r"""Search for the hyperparameters that are best on validation.

  hlr-jax sweep --config=published/ml_100k/cml --workdir=runs/sweep \
    --trials=50 --vary=optimizer.learning_rate=log:1e-4:3e-3 --vary=loss.margin=0.2:2.0 \
    --vary=sampling.num_negatives=int:1:20 --vary=model.dim=choice:32,64,100

Any field of the configuration can be varied (`hlr-jax fields` explains them), and the
others can be set, as in --config.training.epochs=20. Trials that are worse than the median of the
others are stopped early. The working directory receives trials.csv, best.json (the configuration of
the best trial) and importance.png. Repeat the command to resume a sweep that was stopped, or to
continue it with more --trials or --minutes, which count from the beginning of the sweep.
"""

import dataclasses
import pathlib

from absl import flags

from hlr_jax import cli, config

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for everything that the sweep writes.", required=True
)
_VARY = flags.DEFINE_multi_string(
    "vary",
    None,
    "A field and its values: section.field=low:high, =log:low:high, =int:low:high or "
    "=choice:value,value. Repeat the flag for each field.",
    required=True,
)
_OBJECTIVE = flags.DEFINE_string(
    "objective", "ndcg@10", "What to optimize on validation: a metric and its cutoff, or loss."
)
_TRIALS = flags.DEFINE_integer("trials", None, "End after this many trials.")
_MINUTES = flags.DEFINE_float("minutes", None, "End after trials have taken this long.")


def main() -> None:
    """Search, print the best trials and how to train the best one."""
    from hlr_jax.tuning import report, sweep

    chosen = config.from_config_dict(_CONFIG.value)
    training = dataclasses.replace(chosen.training, selection_metric=_OBJECTIVE.value)
    outcome = sweep.search(
        dataclasses.replace(chosen, training=training),
        _WORKDIR.value,
        _VARY.value,
        sweep.Budget(_TRIALS.value, _MINUTES.value),
    )
    cli.say(cli.plain(outcome.table(outcome.ranked[:10])))
    cli.say("the best one, with checkpoints and test metrics:")
    cli.say(report.command(pathlib.Path(_WORKDIR.value)))

"""Search for hyperparameters that are best on validation.

  python launch/sweep.py --config=configs/ml_100k/cml.py --workdir=runs/sweep --trials=50 \
    --vary=optimizer.learning_rate=log:1e-4:3e-3 --vary=loss.margin=0.2:2.0 \
    --vary=sampling.negatives=int:1:20 --vary=model.dim=choice:32,64,100

Any field of the configuration can be varied (hlr_jax/config/fields.py tells what they mean), and
any other be set, --config.training.epochs=20. Trials that are worse than the median of the others
are pruned. In the working directory come trials.csv, best.json (the configuration of the best
trial) and importance.png. The same command again resumes a sweep that was stopped; with more
--trials or --minutes, which count from the sweep's beginning, it goes on.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from hlr_jax import cli, config

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, configs/<data set>/<model>.py."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that the sweep is kept in.")
_VARY = flags.DEFINE_multi_string(
    "vary",
    None,
    "A field and its values: section.field=low:high, =log:low:high, =int:low:high or "
    "=choice:value,value. Once for every field.",
)
_OBJECTIVE = flags.DEFINE_string(
    "objective", "ndcg@10", "What is best: a metric and its cutoff, or loss; on validation."
)
_TRIALS = flags.DEFINE_integer("trials", None, "End after this many trials.")
_MINUTES = flags.DEFINE_float("minutes", None, "End after this much time in trials.")
flags.mark_flags_as_required(["config", "workdir", "vary"])


def main() -> None:
    """Search, print the best trials and how to train the best one."""
    from hlr_jax.tuning import report as sweep_report
    from hlr_jax.tuning import sweep

    outcome = sweep.search(
        config.from_config_dict(_CONFIG.value),
        _WORKDIR.value,
        _VARY.value,
        _OBJECTIVE.value,
        _TRIALS.value,
        _MINUTES.value,
    )
    print(cli.plain(outcome.table(outcome.ranked[:10])))
    print("the best one, with checkpoints and test metrics:")
    print(sweep_report.command(pathlib.Path(_WORKDIR.value)))


if __name__ == "__main__":
    cli.run(main)

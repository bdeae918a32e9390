"""Train a model and measure it.

  python launch/train.py --config=configs/ml_1m/hlr.py --workdir=runs/hlr

Any field of the configuration can be changed by a flag, for example
  --config.optimizer.learning_rate=3e-4 --config.training.epochs=20 --config.seed=1
  --config.data.predefined=DIR   (a folder with train.csv, valid.csv and test.csv)
and its fields with their meaning stand in hlr_jax/config/fields.py. In the working directory come
config.json, metrics.jsonl (a line per epoch), checkpoints/ and results.json. The same command
again resumes an unfinished run, on any number of devices and processes.

A run of several processes, on one machine or on many, is the same command for each of them with
  --coordinator_address=HOST:PORT --num_processes=N --process_id=0 (to N - 1)
or --coordinator_address=auto under SLURM, Open MPI or on a TPU pod; docs/launching.md has more.
"""

from absl import flags
from ml_collections import config_flags

from hlr_jax import cli, config

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, configs/<data set>/<model>.py."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything the run writes.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Train, evaluate, print the test metrics."""
    from hlr_jax.runs import experiment

    results = experiment.train_and_evaluate(config.from_config_dict(_CONFIG.value), _WORKDIR.value)
    cli.say(cli.metrics_table({name: results[name] for name in ("test", "valid") if results[name]}))
    cli.say(f"written to {_WORKDIR.value}/results.json")


if __name__ == "__main__":
    cli.run(main)

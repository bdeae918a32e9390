"""Train a model and measure it.

  hlr-jax train --config=embedded/hlr --workdir=runs/hlr

Any field of the configuration can be changed by a flag, for example
  --config.optimizer.learning_rate=3e-4 --config.training.epochs=20 --config.seed=1
  --config.data.predefined=DIR   (a folder with train.csv, valid.csv and test.csv)
`hlr-jax fields` explains all of them. The working directory receives config.json,
metrics.jsonl (a line for each epoch), checkpoints/ and results.json. Repeat the command to resume
an unfinished run, on any number of devices and processes.

Relations, geometries, losses and samplers of your own are found if their package is installed and
declares them (entry points of the group hlr_jax.plugins), or by
  --import=my_module   (on PYTHONPATH; `PYTHONPATH=.` finds modules in the current folder)

For a run of several processes, on one machine or on many, start this command for each of them with
  --coordinator_address=HOST:PORT --num_processes=N --process_id=0 (to N - 1)
or --coordinator_address=auto under SLURM, Open MPI or on a TPU pod; docs/launching.md has more.
"""

import shlex

from absl import flags

from hlr_jax import cli, config

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for everything the run writes.", required=True
)
_TRACKERS = flags.DEFINE_list(
    "trackers", [], "Who else is told of the run: csv, tensorboard, mlflow, wandb."
)
_REPORT = flags.DEFINE_bool("report", False, "Write report.html too, a page to look at.")
_ALL_METRICS = cli.define_all_metrics()


def main() -> None:
    """Say what is to be done, train, evaluate, and say how it went."""
    from hlr_jax.runs import experiment, trackers, words

    workdir = _WORKDIR.value
    told = [words.Announcer(workdir, cli.say), *trackers.named(_TRACKERS.value, workdir)]
    if _REPORT.value:
        from hlr_jax.reporting import ReportCheck, report_run

        told.append(ReportCheck())  # Now, not after hours.
    values = config.from_config_dict(_CONFIG.value)
    results = experiment.train_and_evaluate(values, workdir, callbacks=told)
    cli.say("\n" + words.ended(values, results) + "\n")
    columns = {name: results[name] for name in ("test", "valid") if results[name]}
    if columns:
        cli.say(cli.measured(columns, _ALL_METRICS.value) + "\n")
    cli.say(f"written to {workdir}/results.json")
    if _REPORT.value:
        cli.say(f"written to {report_run(workdir)}")
    cli.say("\n".join(["next:", *_next(workdir, bool(results["test"]))]))


def _next(workdir: str, has_test: bool) -> list[str]:
    """List commands for a trained model, a line each."""
    measuring = [("evaluate", "--config.evaluation.cutoffs=(5,20)"), ("report",)]
    using = [("recommend", "--users=all", "--k=10", "--output=top10.csv"), ("serve",)]
    return [
        "  " + shlex.join(["hlr-jax", name, f"--workdir={workdir}", *given])
        for name, *given in [*(measuring if has_test else []), *using]
    ]

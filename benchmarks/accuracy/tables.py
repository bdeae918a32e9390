r"""Accuracy of models and baselines, by protocol: fills, prints and renders tables.

  python -m benchmarks.accuracy.tables --protocol=ml-100k-hlr --render
  python -m benchmarks.accuracy.tables --protocol=ml-1m-hlr --entries=cml,hlr-tuned --seeds=2021 \
    --minutes=30   (a part of it; the same command again continues)
  python -m benchmarks.accuracy.tables --render --record   (only write docs/tables.md and plots)

The entries of a protocol stand in `protocols.py`. Each is run once per seed, unless its
configuration or data have changed since. Runs that are committed in `benchmarks/results/accuracy/`
count; those that are added, the page and the plots go to the folder `accuracy` of --out, or with
--record to the committed results and docs/tables.md. Without its data a protocol is skipped.
"""

import dataclasses
import pathlib
import signal
import sys
from typing import Any

import numpy as np
from absl import flags

from benchmarks import output, report
from benchmarks.accuracy import dot_plot, pages, records
from benchmarks.accuracy.entries import (
    Baseline,
    Entry,
    Model,
    Protocol,
    config_of,
    described,
    fingerprint,
    seeds_of,
)
from benchmarks.accuracy.protocols import PROTOCOLS
from benchmarks.accuracy.summaries import summary
from hlr_jax import cli
from hlr_jax.comparison import words
from hlr_jax.config import Config
from hlr_jax.data import loading, locate
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.files import write_text

_PAGE = output.ROOT / "docs" / "tables.md"
# The plots, as the page links them.
_PLOTS = "../benchmarks/results/accuracy/"

_PROTOCOL = flags.DEFINE_list("protocol", [], f"Tables to fill, of {', '.join(PROTOCOLS)}.")
_ENTRIES = flags.DEFINE_list("entries", [], "Names (cml) or keys (cml-tuned); else all.")
_SEEDS = flags.DEFINE_list("seeds", ["2021", "2022", "2023"], "Seeds of the runs.")
_MINUTES = flags.DEFINE_float("minutes", 0, "Stop after this long; 0 goes on to the end.")
_SCRATCH = flags.DEFINE_string("scratch", "", "Folder for runs; else one in the cache folder.")
_RENDER = flags.DEFINE_boolean("render", False, "Write the page of results and the plots.")


def main() -> None:
    """Fill the tables that are asked for, print them, and render if wanted."""
    if not (_PROTOCOL.value or _RENDER.value):
        raise InputError("--protocol: name one or more, or give --render alone")
    for name in _PROTOCOL.value:
        if name not in PROTOCOLS:
            raise InputError(f"--protocol={name}: use one of {', '.join(PROTOCOLS)}")
    if not all(seed.isdecimal() for seed in _SEEDS.value) or not _SEEDS.value:
        raise InputError(f"--seeds={','.join(_SEEDS.value)}: give whole numbers, as in 2021,2022")
    output.check([])
    seeds = [int(seed) for seed in _SEEDS.value]
    is_over = False
    if _MINUTES.value > 0:
        # Training saves its state on an interrupt, and a later run resumes it. Shells start
        # what they put into the background with interrupts ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 60 * _MINUTES.value)
    try:
        for name in _PROTOCOL.value:
            fill(PROTOCOLS[name], seeds)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        if not _MINUTES.value or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            raise
        is_over = True
    for name in _PROTOCOL.value:
        show(PROTOCOLS[name])
    if _RENDER.value:
        render()
    if is_over:
        cli.say(f"stopped after {_MINUTES.value:g} minutes; the same command goes on")


def load(protocol: Protocol, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read the results that are in the chosen folder, else the committed ones; see `records`."""
    path = results_file(protocol)
    if not path.exists():
        path = output.COMMITTED / "accuracy" / path.name
    return records.load(path, protocol, data)


def results_file(protocol: Protocol) -> pathlib.Path:
    """Name the file that results are written to."""
    return output.folder() / "accuracy" / f"{protocol.name}.json"


def fill(protocol: Protocol, seeds: list[int]) -> None:
    """Make the runs that are missing, one after the other."""
    entries = protocol.named(_ENTRIES.value)
    try:
        config = config_of(protocol, entries[0], seeds[0])
        dataset = loading.load(dataclasses.replace(config.data, keep_times=False))
    except InputError as error:
        cli.say(f"{protocol.name}: skipped: {error}")
        return
    data = {
        "name": dataset.name,
        "digest": dataset.digest,
        "users": dataset.num_users,
        "items": dataset.num_items,
        "split_sizes": dataset.split_sizes,
    }
    for entry in entries:
        for seed in seeds_of(entry, seeds):
            if records.has(load(protocol, data), entry.key, seed):
                continue
            cli.say(f"{protocol.name}: {entry.key}, seed {seed}")
            results = load(protocol, data)
            try:
                if isinstance(entry, Baseline):
                    run = run_baseline(protocol, entry, seed, results)
                else:
                    run = run_model(protocol, entry, seed)
            except (InputError, DivergedError) as error:
                cli.say(f"{protocol.name}: {entry.key} is left out: {error}")
                break
            values = np.array(run["test"].pop("per_user")[protocol.metrics[0]])
            run["valid"].pop("per_user", None)
            run |= report.provenance("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
            results = load(protocol, data)  # Other processes may have added runs,
            if records.has(results, entry.key, seed):  # or this one.
                continue
            records.add(results, protocol, entry.key, seed, run, values)
            path = results_file(protocol)
            records.save(path, results | {"summary": summary(protocol, results)})
            cli.say(f"written to {path}")


def run_model(protocol: Protocol, model: Model, seed: int) -> dict[str, Any]:
    """Train a model, or resume that, and measure it."""
    # These import JAX, which --help need not wait for.
    from benchmarks import peaks
    from hlr_jax.runs import experiment

    results = experiment.train_and_evaluate(
        _run_config(protocol, model, seed), _folder(protocol, model, seed)
    )
    return (
        {name: results["train"][name] for name in ("seconds", "epochs", "best_epoch")}
        | {"device": peaks.device()}
        | {name: results[name] for name in ("valid", "test", "diagnosis") if name in results}
    )


def _run_config(protocol: Protocol, entry: Entry, seed: int) -> Config:
    """Return the configuration of a run, with values of each user, and pretrained tables."""
    config = config_of(protocol, entry, seed)
    if isinstance(entry, Model) and entry.pretrained:
        earlier = protocol.entry(entry.pretrained)
        assert isinstance(earlier, Model)
        folder = _folder(protocol, earlier, seed)
        if not (folder / "results.json").exists():
            run_model(protocol, earlier, seed)
        training = dataclasses.replace(config.training, pretrained=str(folder))
        config = dataclasses.replace(config, training=training)
    evaluation = dataclasses.replace(config.evaluation, per_user=True, bootstrap=0)
    return dataclasses.replace(config, evaluation=evaluation)


def run_baseline(
    protocol: Protocol, baseline: Baseline, seed: int, results: dict[str, Any]
) -> dict[str, Any]:
    """Tune a baseline unless that is done, fit it on training and validation, and measure it."""
    from hlr_jax.baselines import Tuning, tune_and_evaluate

    config = _run_config(protocol, baseline, seed)
    folder = _folder(protocol, baseline, seed)
    done = list(results["entries"].get(baseline.key, {"runs": {}})["runs"].values())
    given = done[0]["hyperparameters"] if done else dict(baseline.settings)
    tuning = Tuning(baseline.trials, protocol.selection_metric, given)
    found = tune_and_evaluate(baseline.name, config, folder, tuning, refit=True)
    trials = found["trials"]
    return {
        "seconds": found["fit_seconds"],
        "hyperparameters": found["hyperparameters"],
        "trials": done[0]["trials"] if done else len(trials),
        "tuning_seconds": round(sum(trial["seconds"] for trial in trials), 3),
        "valid": found["valid"],
        "test": found["test"],
    }


def _folder(protocol: Protocol, entry: Entry, seed: int) -> pathlib.Path:
    """Name the folder of a run's files: another one for other settings."""
    scratch = pathlib.Path(_SCRATCH.value or locate.cache_folder() / "accuracy")
    description = fingerprint(described(protocol, entry))
    return scratch / protocol.name / f"{entry.key}-{seed}-{description[:8]}"


def show(protocol: Protocol) -> None:
    """Print the means over seeds."""
    results = load(protocol)
    if not results["entries"]:
        return
    rows = []
    for key, row in summary(protocol, results)["rows"].items():
        values = (pages.over_seeds(row[metric]) for metric in protocol.metrics)
        rows.append([key, str(len(row["seeds"])), *values])
    head = [protocol.name, "seeds", *map(words.metric_name, protocol.metrics)]
    cli.say(report.table(head, rows))


def render() -> None:
    """Write all results into the page, and draw the plots."""
    folder = output.folder() / "accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    plots = _PLOTS if output.is_recording() else ""
    tables = {}
    for protocol in PROTOCOLS.values():
        results = load(protocol)
        if results["entries"]:
            found = summary(protocol, results)
            tables[protocol.name] = pages.as_markdown(protocol, results, found, plots)
            dot_plot.draw(folder / f"{protocol.name}.png", protocol, results, found)
    page = _PAGE.read_text(encoding="utf-8") if _PAGE.exists() else ""
    path = _PAGE if output.is_recording() else folder / _PAGE.name
    write_text(path, pages.render(page, tables))
    cli.say(f"written to {path}")


if __name__ == "__main__":
    cli.run(sys.modules[__name__])

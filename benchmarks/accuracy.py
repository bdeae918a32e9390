r"""How well models and baselines recommend, by protocol: fills, prints and renders a table.

  python benchmarks/accuracy.py --protocol=ml-100k-hlr --render
  python benchmarks/accuracy.py --protocol=ml-1m-hlr --contenders=cml,hlr-tuned --seeds=2021 \
    --minutes=30   (a part of it; the same command again goes on, as any other does)
  python benchmarks/accuracy.py --render   (only write docs/results.md and the plots anew)

Who contends in a protocol stands in `benchmarks/harness/protocols.py`. A run is made once per
contender and seed, unless its settings or data have changed since, and is kept in
`benchmarks/results/accuracy/PROTOCOL.json`; what trains meanwhile is in the scratch folder. Without
its data a protocol is skipped.
"""

import dataclasses
import pathlib
import signal
from typing import Any

import numpy as np
from absl import flags
from harness import dot_plot, pages, records, report
from harness.contenders import (
    Baseline,
    Model,
    Protocol,
    config_of,
    described,
    fingerprint,
    seeds_of,
)
from harness.protocols import PROTOCOLS
from harness.summaries import summary

from hlr_jax import cli
from hlr_jax.config import Config
from hlr_jax.data import datasets, locate
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.files import write_text

_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "results.md"
_RESULTS = pathlib.Path(report.results_path("accuracy"))

_PROTOCOL = flags.DEFINE_list("protocol", [], f"Tables to fill, of {', '.join(PROTOCOLS)}.")
_CONTENDERS = flags.DEFINE_list("contenders", [], "Names (cml) or keys (cml-tuned); else all.")
_SEEDS = flags.DEFINE_list("seeds", ["2021", "2022", "2023"], "Seeds of the runs.")
_MINUTES = flags.DEFINE_float("minutes", 0, "Stop after this long; 0 goes on to the end.")
_SCRATCH = flags.DEFINE_string("scratch", "", "Folder for runs; else one in the cache folder.")
_RENDER = flags.DEFINE_boolean("render", False, "Write docs/results.md and the plots.")


def main() -> None:
    """Fill the tables that are asked for, print them, and render if wanted."""
    if not (_PROTOCOL.value or _RENDER.value):
        raise InputError("--protocol: name one or more, or give --render alone")
    for name in _PROTOCOL.value:
        if name not in PROTOCOLS:
            raise InputError(f"--protocol={name}: use one of {', '.join(PROTOCOLS)}")
    if not all(seed.isdecimal() for seed in _SEEDS.value) or not _SEEDS.value:
        raise InputError(f"--seeds={','.join(_SEEDS.value)}: give whole numbers, as in 2021,2022")
    seeds = [int(seed) for seed in _SEEDS.value]
    is_over = False
    if _MINUTES.value > 0:
        # Training saves its state on an interrupt, and goes on from it.
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


def fill(protocol: Protocol, seeds: list[int]) -> None:
    """Make the runs that are missing, one after the other."""
    contenders = protocol.named(_CONTENDERS.value)
    try:
        dataset = datasets.load(config_of(protocol, contenders[0], seeds[0]).data)
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
    path = _RESULTS / f"{protocol.name}.json"
    for contender in contenders:
        for seed in seeds_of(contender, seeds):
            if records.has(records.load(path, protocol, data), contender.key, seed):
                continue
            cli.say(f"{protocol.name}: {contender.key}, seed {seed}")
            results = records.load(path, protocol, data)
            try:
                if isinstance(contender, Baseline):
                    run = run_baseline(protocol, contender, seed, results)
                else:
                    run = run_model(protocol, contender, seed)
            except (InputError, DivergedError) as error:
                cli.say(f"{protocol.name}: {contender.key} is left out: {error}")
                break
            values = np.array(run["test"].pop("per_user")[protocol.metrics[0]])
            run["valid"].pop("per_user", None)
            run |= report.provenance("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
            results = records.load(path, protocol, data)  # Others may have filled in more,
            if records.has(results, contender.key, seed):  # or the same.
                continue
            records.add(results, protocol, contender.key, seed, run, values)
            records.save(path, results | {"summary": summary(protocol, results)})


def run_model(protocol: Protocol, model: Model, seed: int) -> dict[str, Any]:
    """Train a model, or go on with it, and measure it."""
    # These import JAX, which --help need not wait for.
    from harness import peaks

    from hlr_jax.runs import experiment

    results = experiment.train_and_evaluate(
        _run_config(protocol, model, seed), _folder(protocol, model, seed)
    )
    return (
        {name: results["train"][name] for name in ("seconds", "epochs", "best_epoch")}
        | {"device": peaks.device()}
        | {name: results[name] for name in ("valid", "test")}
    )


def _run_config(protocol: Protocol, contender: Model | Baseline, seed: int) -> Config:
    """The configuration of a run, with what its record needs."""
    config = config_of(protocol, contender, seed)
    if isinstance(contender, Model) and contender.pretrained:
        earlier = protocol.contender(contender.pretrained)
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
    done = list(results["contenders"].get(baseline.key, {"runs": {}})["runs"].values())
    given = done[0]["hyperparameters"] if done else dict(baseline.settings)
    tuning = Tuning(baseline.trials, protocol.select, given)
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


def _folder(protocol: Protocol, contender: Model | Baseline, seed: int) -> pathlib.Path:
    """Where a run keeps its files: another folder for other settings."""
    scratch = pathlib.Path(_SCRATCH.value or locate.cache_folder() / "accuracy")
    description = fingerprint(described(protocol, contender))
    return scratch / protocol.name / f"{contender.key}-{seed}-{description[:8]}"


def show(protocol: Protocol) -> None:
    """Print the means over seeds."""
    results = records.load(_RESULTS / f"{protocol.name}.json", protocol, None)
    if not results["contenders"]:
        return
    rows = []
    for key, row in summary(protocol, results)["rows"].items():
        values = (pages.over_seeds(row[metric]) for metric in protocol.metrics)
        rows.append([key, str(len(row["seeds"])), *values])
    head = [protocol.name, "seeds", *map(pages.metric_name, protocol.metrics)]
    cli.say(report.table(head, rows))


def render() -> None:
    """Write all that is known into the page, and the plots."""
    tables = {}
    for protocol in PROTOCOLS.values():
        results = records.load(_RESULTS / f"{protocol.name}.json", protocol, None)
        if results["contenders"]:
            found = summary(protocol, results)
            tables[protocol.name] = pages.as_markdown(protocol, results, found)
            dot_plot.draw(_RESULTS / f"{protocol.name}.png", protocol, results, found)
    page = _PAGE.read_text(encoding="utf-8") if _PAGE.exists() else ""
    write_text(_PAGE, pages.render(page, tables))
    cli.say(f"written to {_PAGE}")


if __name__ == "__main__":
    cli.run(main)

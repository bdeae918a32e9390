"""What it costs to spread training over devices: time, traffic and memory per step and device.

    python benchmarks/scaling.py            # 5 minutes
    python benchmarks/scaling.py --large    # also 2e7 users cut over 4 devices; needs 12 GiB

Strong and weak scaling over 1 to 8 devices, two processes against one, pmap against jit, and a
model of the time of a step fitted to all that (`harness/cost_model.py`), which is then carried to
a billion users (`harness/carried.py`). Writes JSON and, beside it, a plot.

The devices are virtual ones of one CPU: more of them than cores share the cores, so the times
show what spreading costs and not what it brings. Bytes are counted in the compiled program.
"""

import argparse
import functools
import json
import os
from collections.abc import Sequence
from typing import Any

# Read when JAX starts its backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
from harness import carried, cost_model, peaks, report, spread, timing, two_processes
from harness.spread import Case, Contestant

from hlr_jax.parallel import devices, layout
from hlr_jax.training import step as training

STRONG, WEAK = 4096, 1024  # triplets of a step: of all devices, of each device
COUNTS = (1, 2, 4, 8)
LARGE = (200_000, 2_000_000, 20_000_000)
# Model, updated rows, kinds of scaling. CML with all rows tells passes over rows from arithmetic.
MEASURED = (
    ("cml", "touched", ("strong", "weak")),
    ("cml", "all", ("strong",)),
    ("hlr", "all", ("strong", "weak")),
)


def scaling(rounds: int) -> list[dict[str, Any]]:
    """Strong (one batch for all) and weak scaling (a batch for each device), all in turns."""
    dataset = spread.made_up(*spread.DATASET)
    kinds: dict[tuple[Case, int], list[str]] = {}
    for model, rows, wanted in MEASURED:
        for kind in wanted:
            for count in COUNTS:
                for mode in spread.MODES[: 3 if count > 1 else 2]:
                    batch = STRONG if kind == "strong" else WEAK * count
                    kinds.setdefault((Case(model, rows, mode, batch), count), []).append(kind)
    runs = {key: Contestant(*key, dataset) for key in kinds}
    times = timing.alternate({key: run.step for key, run in runs.items()}, rounds)
    return [
        {
            **run.described(),
            "scaling": kinds[key],
            "milliseconds": timing.per_step(times[key], run.steps),
        }
        for key, run in runs.items()
    ]


def dispatch(name: str, rounds: int) -> dict[str, Any]:
    """`pmap` on one device against plain `jit` of the same loop."""
    dataset, case = spread.made_up(*spread.DATASET), Case(name, "all", "replicated", 1000)
    ours, plain = Contestant(case, 1, dataset), Contestant(case, 1, dataset)
    device = jax.devices()[0]
    static = (ours.model, ours.optimizer, ours.config, layout.ALONE)
    source, order = jax.device_put((plain.positives.source, plain.order[0]), device)
    state = jax.device_put(plain.state, device)
    loop = jax.jit(training._steps, static_argnums=(6, 7, 8, 9), donate_argnums=0)
    steps = 2 * ours.steps

    def by_jit() -> None:
        nonlocal state
        state = loop(state, source, order, plain.key, 0, steps, *static)
        jax.block_until_ready(state)

    contestants = {"pmap": functools.partial(ours.step, steps), "jit": by_jit}
    times = timing.alternate(contestants, rounds)
    found = {kind: timing.per_step(seconds, steps) for kind, seconds in times.items()}
    return {
        **ours.described(),
        "milliseconds": found["pmap"],
        "milliseconds_of_jit": found["jit"],
        "ratio": found["pmap"]["min"] / found["jit"]["min"],
    }


def large(users: int, rounds: int) -> dict[str, Any]:
    """CML, users cut over 4 devices, updating touched rows; and how long the host shuffles."""
    dataset = spread.made_up(users, 100_000, 2)
    run = Contestant(Case("cml", "touched", "users cut", STRONG), 4, dataset)
    run.step()
    loss = run.state.mean_loss()
    times = [timing.seconds(run.step) for _ in range(rounds)]
    shuffle = functools.partial(run.placement.order, run.key, run.positives, STRONG)
    return {
        **run.described(),
        "milliseconds": timing.per_step(times, run.steps),
        "loss_at_first": loss,
        "shuffle_ns_per_interaction": 1e9 * timing.seconds(shuffle) / len(dataset.train),
    }


def between_processes(rounds: int) -> list[dict[str, Any]]:
    """Two processes of two devices, and how much longer they take than one of four."""
    cases = [Case(m, rows, mode, STRONG) for m, rows, _ in MEASURED for mode in spread.MODES]
    rows = two_processes.measure(cases, rounds)
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        times = two["milliseconds"], one["milliseconds"]
        two["ratio"] = {kind: times[0][kind] / times[1][kind] for kind in ("median", "min")}
    return rows


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row."""

    def cells(row: dict[str, Any]) -> list[str]:
        time, ratio = row["milliseconds"], row.get("ratio", {})
        return [
            *(row["model"], row["rows"], row["mode"]),
            *(str(row.get("processes", 1)), str(row["devices"]), str(row["batch"])),
            *(f"{time[kind]:.2f}" for kind in ("min", "median", "upper_quartile")),
            *(f"{row['sent_bytes'][kind] / 1e6:.2f}" for kind in row["sent_bytes"]),
            f"{sum(row['held_bytes'].values()) / 1e6:.2f}",
            f"{ratio['min']:.2f}" if isinstance(ratio, dict) and ratio else "",
        ]

    head = ["model", "rows", "mode", "processes", "devices", "batch", "ms/step", "median"]
    head += ["upper quartile", *rows[0]["sent_bytes"], "MB held", "against 1 process"]
    return report.table(head, list(map(cells, rows)), names=3)


def plot(rows: Sequence[dict[str, Any]], fit: dict[str, Any], path: str) -> None:
    """Time by devices for strong and weak scaling, and measured against fitted time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = cost_model.rates_of(fit)
    lines = list(dict.fromkeys((row["model"], row["rows"], row["mode"]) for row in rows))
    models = list(dict.fromkeys(line[:2] for line in lines))
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    for line in lines:
        own = [row for row in rows if (row["model"], row["rows"], row["mode"]) == line]
        style = {
            "color": f"C{models.index(line[:2])}",
            "marker": "osx"[spread.MODES.index(line[2])],
        }
        for kind, panel in zip(("strong", "weak"), panels, strict=False):
            shown = sorted(
                (row["devices"], row["milliseconds"]["min"])
                for row in own
                if kind in row["scaling"]
            )
            if shown:
                panel.plot(
                    *zip(*shown, strict=True),
                    label=f"{line[0]}, {line[1]} rows, {line[2]}",
                    **style,
                )
        found = [1e3 * sum(rates.parts(row).values()) for row in own]
        panels[2].plot([row["milliseconds"]["min"] for row in own], found, linestyle="", **style)
    for panel, title in zip(
        panels, (f"{STRONG} triplets in all", f"{WEAK} triplets for each device"), strict=False
    ):
        panel.set(title=title, xlabel="virtual devices", xscale="log", yscale="log")
        panel.set_xticks(COUNTS, map(str, COUNTS))
        panel.set_xticks([], minor=True)
    ends = panels[2].get_xlim()
    panels[2].plot(ends, ends, color="grey", linewidth=1)
    panels[2].set(
        title="the model of time",
        xlabel="measured ms per step",
        ylabel="fitted",
        xscale="log",
        yscale="log",
    )
    panels[0].set_ylabel("ms per step")
    panels[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


def measure(rounds: int, is_large: bool) -> dict[str, Any]:
    """All measurements, printed as they come."""
    results: dict[str, Any] = report.provenance("jax", "jaxlib", "scipy")
    results["peaks"] = peaks.of_whole_cpu()
    results["dispatch"] = [dispatch(name, rounds) for name in ("cml", "hlr")]
    for row in results["dispatch"]:
        print(f"{row['model']}: pmap takes {row['ratio']:.3f} times as long as jit", flush=True)
    with timing.Bystanders() as bystanders:
        results["processes"] = between_processes(rounds)
        print(as_text(results["processes"]), flush=True)
        results["scaling"] = scaling(rounds)
        print(as_text(results["scaling"]), flush=True)
    results["cores_of_other_programs"] = bystanders.cores
    print(f"other programs used {bystanders.cores:.2f} cores meanwhile", flush=True)
    results["large"] = [large(users, rounds) for users in LARGE] if is_large else []
    if is_large:
        print(as_text(results["large"]), flush=True)
    return results


def concluded(results: dict[str, Any]) -> dict[str, Any]:
    """Measurements, with the model that is fitted to them and what follows from it."""
    others = {
        "large tables": results["large"],
        "batches of 1000, one device": results["dispatch"],
        "one process": [row for row in results["processes"] if row["processes"] == 1],
        "two processes": [row for row in results["processes"] if row["processes"] == 2],
    }
    cores = results["machine"]["cores"]
    fit = cost_model.fit(results["scaling"], others, cores)
    shares = carried.shares(fit, results["peaks"], cores)
    return {**results, "fit": fit, "shares_of_peak": shares, "carried": carried.tables(shares)}


def main() -> None:
    """Measure, fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 2e7 users over 4 devices")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of everything")
    parser.add_argument("--measured", help="a JSON of this program: fit anew, measure nothing")
    parser.add_argument("--output", default=report.results_path("scaling.json"))
    arguments = parser.parse_args()
    if arguments.measured:
        with open(arguments.measured) as file:
            results = json.load(file)
    else:
        devices.keep_compiled_programs()
        results = measure(arguments.rounds, arguments.large)
        report.write_results(arguments.output, results)
    results = concluded(results)
    print(cost_model.as_text(results["fit"]))
    print({name: f"{share:.3f} of the peak" for name, share in results["shares_of_peak"].items()})
    print(carried.as_text(results["carried"]))
    report.write_results(arguments.output, results)
    plot(results["scaling"], results["fit"], os.path.splitext(arguments.output)[0] + ".png")


if __name__ == "__main__":
    main()

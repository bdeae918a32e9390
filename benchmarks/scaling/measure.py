"""Cost of training on several devices: time, traffic and memory per step and device.

    python -m benchmarks.scaling.measure            # 5 minutes
    python -m benchmarks.scaling.measure --large    # also 2e7 users on 4 devices; needs 12 GiB

Strong and weak scaling over 1 to 8 devices, two processes compared with one, pmap compared with
jit, and a model of the time of a step that is fitted to all that (`cost_model.py`) and extrapolated
to a billion users (`extrapolation.py`). Writes JSON and, beside it, a plot.

The devices are virtual ones of one CPU: more of them than cores share the cores, so the times show
what distribution costs and not what it brings. Bytes are counted in the compiled program.
"""

import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

# Read when JAX starts its backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
from absl import app, flags

from benchmarks import output, peaks, quick, report, timing
from benchmarks.scaling import cost_model, device_cases, extrapolation, two_processes
from benchmarks.scaling.device_cases import Case, CaseOnDevices
from hlr_jax.parallel import devices, layout
from hlr_jax.training import epoch

_LARGE = flags.DEFINE_boolean("large", False, "Also 2e7 users over 4 devices.")
_MODELS = flags.DEFINE_list("models", ["cml", "hlr"], "Models to measure.")
_COUNTS = flags.DEFINE_list("counts", ["1", "2", "4", "8"], "Numbers of devices, with 8.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed calls of every case.", lower_bound=1)
_MEASURED = flags.DEFINE_string(
    "measured", "", "JSON that this program has written: fit the model again, measure nothing."
)

STRONG, WEAK = 4096, 1024  # triplets of a step: of all devices, of each device
LARGE = (200_000, 2_000_000, 20_000_000)
# Model, updates, kinds of scaling. CML with dense updates tells passes over rows from arithmetic.
MEASURED = (
    ("cml", "sparse", ("strong", "weak")),
    ("cml", "dense", ("strong",)),
    ("hlr", "dense", ("strong", "weak")),
)


def measured_kinds() -> list[tuple[str, str, tuple[str, ...]]]:
    """List what is measured of the chosen models: model, updates, kinds of scaling."""
    return [kind for kind in MEASURED if kind[0] in _MODELS.value]


def scaling(rounds: int) -> list[dict[str, Any]]:
    """Measure strong (one batch for all) and weak scaling (a batch for each device), in turns."""
    dataset = device_cases.made_up(*device_cases.DATASET)
    kinds: dict[tuple[Case, int], list[str]] = {}
    for model, update, wanted in measured_kinds():
        for kind in wanted:
            for count in map(int, _COUNTS.value):
                for mode in device_cases.MODES[: 3 if count > 1 else 2]:
                    batch = STRONG if kind == "strong" else WEAK * count
                    kinds.setdefault((Case(model, update, mode, batch), count), []).append(kind)
    runs = {key: CaseOnDevices(*key, dataset) for key in kinds}
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
    """Compare `pmap` on one device with plain `jit` of the same loop."""
    dataset = device_cases.made_up(*device_cases.DATASET)
    case = Case(name, "dense", "replicated", 1000)
    ours, plain = CaseOnDevices(case, 1, dataset), CaseOnDevices(case, 1, dataset)
    device = jax.devices()[0]
    rows = plain.rows._replace(order=plain.rows.order[0])
    state, rows, recipe = jax.device_put((plain.state, rows, plain.recipe), device)
    loop = jax.jit(epoch._steps, static_argnames="layout", donate_argnames="state")
    steps = 2 * ours.steps

    def by_jit() -> None:
        nonlocal state
        state = loop(state, rows, (0, steps), recipe, layout=layout.ALONE)
        jax.block_until_ready(state)

    calls = {"pmap": functools.partial(ours.step, steps), "jit": by_jit}
    times = timing.alternate(calls, rounds)
    found = {kind: timing.per_step(seconds, steps) for kind, seconds in times.items()}
    return {
        **ours.described(),
        "milliseconds": found["pmap"],
        "milliseconds_of_jit": found["jit"],
        "ratio": found["pmap"]["min"] / found["jit"]["min"],
    }


def large(users: int, rounds: int) -> dict[str, Any]:
    """Measure CML with users sharded over 4 devices and sparse updates, and the host's shuffle."""
    dataset = device_cases.made_up(users, 100_000, 2)
    run = CaseOnDevices(Case("cml", "sparse", "users sharded", STRONG), 4, dataset)
    run.step()
    loss = run.state.mean_loss()
    times = [timing.seconds(run.step) for _ in range(rounds)]
    return {
        **run.described(),
        "milliseconds": timing.per_step(times, run.steps),
        "loss_at_first": loss,
        "shuffle_ns_per_interaction": 1e9 * timing.seconds(run.shuffled) / len(dataset.train),
    }


def between_processes(rounds: int) -> list[dict[str, Any]]:
    """Compare two processes of two devices with one process of four."""
    cases = [
        Case(model, update, mode, STRONG)
        for model, update, _ in measured_kinds()
        for mode in device_cases.MODES
    ]
    rows = two_processes.measure(cases, rounds)
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        times = two["milliseconds"], one["milliseconds"]
        two["ratio"] = {kind: times[0][kind] / times[1][kind] for kind in ("median", "min")}
    return rows


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """Lay out a line for each row."""

    def cells(row: dict[str, Any]) -> list[str]:
        time, ratio = row["milliseconds"], row.get("ratio", {})
        return [
            *(row["model"], row["update"], row["mode"]),
            *(str(row.get("processes", 1)), str(row["devices"]), str(row["batch"])),
            *(f"{time[kind]:.2f}" for kind in ("min", "median", "upper_quartile")),
            *(f"{row['sent_bytes'][kind] / 1e6:.2f}" for kind in row["sent_bytes"]),
            f"{sum(row['held_bytes'].values()) / 1e6:.2f}",
            f"{ratio['min']:.2f}" if isinstance(ratio, dict) and ratio else "",
        ]

    head = ["model", "update", "mode", "processes", "devices", "batch", "ms/step", "median"]
    head += ["upper quartile", *rows[0]["sent_bytes"], "MB held", "times 1 process"]
    return report.table(head, list(map(cells, rows)), names=3)


def plot(rows: Sequence[dict[str, Any]], fit: dict[str, Any], path: pathlib.Path) -> None:
    """Draw time by devices for strong and weak scaling, and fitted by measured time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = cost_model.rates_of(fit)
    lines = list(dict.fromkeys((row["model"], row["update"], row["mode"]) for row in rows))
    models = list(dict.fromkeys(line[:2] for line in lines))
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    for line in lines:
        own = [row for row in rows if (row["model"], row["update"], row["mode"]) == line]
        style = {
            "color": f"C{models.index(line[:2])}",
            "marker": "osx"[device_cases.MODES.index(line[2])],
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
                    label=f"{line[0]}, {line[1]}, {line[2]}",
                    **style,
                )
        found = [1e3 * sum(rates.parts(row).values()) for row in own]
        panels[2].plot([row["milliseconds"]["min"] for row in own], found, linestyle="", **style)
    for panel, title in zip(
        panels, (f"{STRONG} triplets in all", f"{WEAK} triplets for each device"), strict=False
    ):
        panel.set(title=title, xlabel="virtual devices", xscale="log", yscale="log")
        panel.set_xticks(list(map(int, _COUNTS.value)), _COUNTS.value)
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
    """Measure everything, printing it as it comes."""
    results: dict[str, Any] = report.provenance("jax", "jaxlib", "scipy")
    results["peaks"] = peaks.of_whole_cpu()
    results["dispatch"] = [dispatch(name, rounds) for name in _MODELS.value]
    for row in results["dispatch"]:
        print(f"{row['model']}: pmap takes {row['ratio']:.3f} times as long as jit", flush=True)
    with timing.OtherPrograms() as others:
        results["processes"] = between_processes(rounds)
        print(as_text(results["processes"]), flush=True)
        results["scaling"] = scaling(rounds)
        print(as_text(results["scaling"]), flush=True)
    results["cores_of_other_programs"] = others.cores
    print(f"other programs used {others.cores:.2f} cores meanwhile", flush=True)
    results["large"] = [large(users, rounds) for users in LARGE] if is_large else []
    if is_large:
        print(as_text(results["large"]), flush=True)
    return results


def concluded(results: dict[str, Any]) -> dict[str, Any]:
    """Add to measurements the model that is fitted to them and what follows from it."""
    others = {
        "large tables": results["large"],
        "batches of 1000, one device": results["dispatch"],
        "one process": [row for row in results["processes"] if row["processes"] == 1],
        "two processes": [row for row in results["processes"] if row["processes"] == 2],
    }
    cores = results["machine"]["cores"]
    fit = cost_model.fit(results["scaling"], others, cores)
    shares = extrapolation.shares(fit, results["peaks"], cores)
    return {
        **results,
        "fit": fit,
        "shares_of_peak": shares,
        "extrapolated": extrapolation.tables(shares),
    }


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(models=["cml"], counts=["1", "2", "8"], rounds=2)
    if _MEASURED.value:
        results = json.loads(pathlib.Path(_MEASURED.value).read_text())
    else:
        devices.keep_compiled_programs()
        results = measure(_ROUNDS.value, _LARGE.value)
        output.write("scaling.json", results)
    results = concluded(results)
    print(cost_model.as_text(results["fit"]))
    print({name: f"{share:.3f} of the peak" for name, share in results["shares_of_peak"].items()})
    print(extrapolation.as_text(results["extrapolated"]))
    path = output.write("scaling.json", results)
    plot(results["scaling"], results["fit"], path.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)

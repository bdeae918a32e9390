"""Time of a training step, sampling included, by each size that it depends on.

One size is varied at a time: rows of the user table, history length, slots, negatives, batch. The
others stay those of the published HLR configurations at ML-1M's shapes. The rows of the user table
are varied on one device, with dense updates of all rows and with sparse updates of those that a
batch uses. Sizes that do not fit into memory are skipped and reported.

  python -m benchmarks.speed.step_time --sweeps=users,history_length

Writes the times as JSON and, beside it, a plot.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from absl import app, flags

from benchmarks import output, peaks, quick, report, shapes, timing
from benchmarks.speed.trainers import LibraryTrainer, config_of

_SIZES = {
    "users": ["10000", "100000", "1000000", "10000000"],
    "history_length": ["10", "20", "50", "100", "200"],
    "slots": ["5", "10", "20", "40", "80"],
    "negatives": ["1", "2", "5", "10", "20"],
    "batch_size": ["250", "500", "1000", "2000", "4000", "8000"],
}
_VALUES = {
    name: flags.DEFINE_list(name, values, f"Sizes in the sweep over {name}.")
    for name, values in _SIZES.items()
}
_SWEEPS = flags.DEFINE_list("sweeps", list(_SIZES), "What to vary.")
_MODELS = flags.DEFINE_list("models", ["cml", "hlr"], "Models to train.")
_UPDATES = flags.DEFINE_list(
    "updates", ["dense", "sparse"], "Kinds of updates, in the sweep over users."
)
_DIM = flags.DEFINE_integer("dim", 100, "d, embedding size.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", shapes.DATASETS["ml-1m"][2], "Made-up draws of a pair.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls at each size.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 0, "Steps per timed call; 0 takes about half a second.")

# Tables that a step holds at once: rows, two moments, and one more while they are made; with dense
# updates the gradient and the update too.
_COPIES = {"sparse": 4, "dense": 6}


class Point(NamedTuple):
    """One size to measure at.

    Attributes:
      sweep: what is varied.
      size: to what.
      update: dense or sparse.
      num_users: rows of the user table.
    """

    sweep: str
    size: int
    shape: shapes.Shape
    update: str
    num_users: int


def points(sweep: str) -> Iterator[Point]:
    """List what a sweep measures: nothing for a model that does not depend on the size."""
    sizes = sorted(map(int, _VALUES[sweep].value))
    for model in _MODELS.value:
        base = shapes.Shape(model, dim=_DIM.value)
        if sweep == "users":
            yield from (
                Point(sweep, x, base, update, x) for update in _UPDATES.value for x in sizes
            )
        elif not _concerns(sweep, base):
            continue
        else:
            num_users = shapes.DATASETS["ml-1m"][0]
            for size in sizes:
                shape = dataclasses.replace(base, **{sweep: size})
                yield Point(sweep, size, shape, "dense", num_users)


def _concerns(sweep: str, shape: shapes.Shape) -> bool:
    needed = {"slots": shape.has_memory, "history_length": shape.has_history}
    return needed.get(sweep, True)


def measure(point: Point) -> dict[str, Any]:
    """Measure milliseconds per step at one size, or say why it is skipped."""
    num_items = shapes.DATASETS["ml-1m"][1]
    row = {
        "sweep": point.sweep,
        "size": point.size,
        "model": point.shape.model,
        "update": point.update,
    }
    needed = 4 * _COPIES[point.update] * (point.num_users + num_items) * point.shape.dim
    if needed > free_bytes():
        return row | {"skipped": f"needs about {needed / 2**30:.0f} GiB"}
    data = shapes.made_up(point.num_users, num_items, _DRAWS.value)
    num_devices = 1 if point.sweep == "users" else None
    trainer = LibraryTrainer(config_of(point.shape, point.update), data, num_devices)
    steps = _STEPS.value or timing.steps_that_take(0.5, trainer.run)
    calls = {"ours": functools.partial(trainer.run, steps)}
    times = timing.alternate(calls, _ROUNDS.value)["ours"]
    jax.clear_caches()  # No program is used again at another size.
    return row | {"milliseconds": timing.summary([1e3 * time / steps for time in times])}


def free_bytes() -> int:
    """Find how much memory is free on the device."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw a panel per sweep, a line per model and kind of update, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    lines = list(dict.fromkeys((row["model"], row["update"]) for row in rows))
    figure, panels = plt.subplots(
        1, len(sweeps), figsize=(4 * len(sweeps), 3.5), squeeze=False, layout="constrained"
    )
    for sweep, panel in zip(sweeps, panels[0], strict=True):
        measured = [row for row in rows if row["sweep"] == sweep and "milliseconds" in row]
        for number, (model, update) in enumerate(lines):
            line = [x for x in measured if (x["model"], x["update"]) == (model, update)]
            if not line:
                continue
            sizes, times = [x["size"] for x in line], [x["milliseconds"] for x in line]
            median = [time["median"] for time in times]
            # The same colour in every panel.
            style = {"color": f"C{number}"}
            panel.plot(sizes, median, marker="o", label=f"{model}, {update}", **style)
            low, high = ([time[f"{end}_quartile"] for time in times] for end in ("lower", "upper"))
            panel.fill_between(sizes, low, high, alpha=0.3, **style)
        panel.set(xscale="log", yscale="log", xlabel=sweep.replace("_", " "))
        if measured:
            panel.legend()
    panels[0][0].set_ylabel("milliseconds per step")
    figure.savefig(path, dpi=150)


def as_text(rows: list[dict[str, Any]]) -> str:
    """Lay out median and quartiles of each size."""

    def cells(row: dict[str, Any]) -> list[str]:
        time = row.get("milliseconds")
        times = [f"{time[name]:.2f}" for name in _SHOWN] if time else [row["skipped"], "", ""]
        return [row["sweep"], row["model"], row["update"], f"{row['size']:,}", *times]

    head = [
        "varied",
        "model",
        "update",
        "size",
        "ms/step",
        "lower quartile",
        "upper quartile",
    ]
    return report.table(head, list(map(cells, rows)), names=3)


_SHOWN = ("median", "lower_quartile", "upper_quartile")


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(users=["1000"], history_length=["5"], slots=["5"], negatives=["2"])
    quick.shrink(batch_size=["250"], dim=16, draws=20_000, rounds=2, steps=3)
    rows = []
    for sweep in _SWEEPS.value:
        found = [measure(point) for point in points(sweep)]
        if found:
            print(as_text(found), flush=True)
        rows += found
    path = output.write(
        "step_time.json",
        {
            "settings": {"dim": _DIM.value},
            "results": rows,
            "peaks": peaks.peaks(),
            "device": peaks.device(),
            **report.provenance("jax", "jaxlib", "flax", "optax", "numpy"),
        },
    )
    plot(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)

"""Train for thousands of epochs with a folder, and watch what a process holds.

`torture` runs this module in a process of its own, which prints its figures as JSON.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reliability.programs import write_data

EVERY = 10  # Epochs between two looks.
# What is watched, as the page calls it.
WATCHED = {
    "host_mib": "memory of the process, MiB",
    "device_arrays": "arrays on the devices",
    "device_kib": "memory of these, KiB",
    "handles": "open files",
    "threads": "threads",
    "step_us": "a step of training, µs",
    "epoch_ms": "an epoch with its checkpoint, ms",
}


def looked() -> dict[str, float]:
    """What this process holds now."""
    import jax

    gc.collect()
    arrays = jax.live_arrays()
    status = pathlib.Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "host_mib": int(values["VmRSS"].split()[0]) / 1024,
        "device_arrays": len(arrays),
        "device_kib": sum(array.nbytes for array in arrays) / 1024,
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": int(values["Threads"]),
    }


def watched(epochs: int) -> list[dict[str, float]]:
    """Train for so many epochs, and look every `EVERY`."""
    import hlr_jax
    from hlr_jax.runs.trackers import Callback

    looks: list[dict[str, float]] = []

    class Watch(Callback):
        def __init__(self) -> None:
            self.clock, self.step, self.seconds = time.perf_counter(), 0, 0.0

        def on_epoch(self, record: Mapping[str, Any]) -> None:
            if record["epoch"] % EVERY:
                return
            now, steps = time.perf_counter(), record["step"] - self.step
            times = {
                "epoch": record["epoch"],
                "epoch_ms": 1e3 * (now - self.clock) / EVERY,
                "step_us": 1e6 * (record["seconds"] - self.seconds) / steps,
            }
            looks.append(times | looked())
            self.step, self.seconds = record["step"], record["seconds"]
            self.clock = time.perf_counter()

    with tempfile.TemporaryDirectory() as scratch:
        data = pathlib.Path(scratch) / "data.csv"
        write_data(data)
        config = hlr_jax.Config(
            data=hlr_jax.DataConfig(name="file", path=str(data)),
            model=hlr_jax.ModelConfig("cml", dim=8),
            training=hlr_jax.TrainingConfig(epochs=epochs, batch_size=64, patience=0),
        )
        folder = pathlib.Path(scratch) / "run"
        hlr_jax.train(config, folder, show_progress=False, callbacks=[Watch()])
    return looks


def fifths(looks: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Medians of the first and the last fifth of the epochs, by what is watched."""
    size = max(1, len(looks) // 5)
    return {
        name: {
            "first": statistics.median(look[name] for look in looks[:size]),
            "last": statistics.median(look[name] for look in looks[-size:]),
        }
        for name in WATCHED
    }


def draw(path: pathlib.Path, looks: Sequence[Mapping[str, float]]) -> None:
    """Draw what was watched over the epochs, each from zero."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in WATCHED if name != "device_kib"]
    figure, panels = plt.subplots(2, 3, figsize=(10, 4.6), layout="constrained", sharex=True)
    epochs = [look["epoch"] for look in looks]
    for panel, name in zip(panels.flat, names, strict=True):
        values = [look[name] for look in looks]
        panel.plot(epochs, values, linewidth=1)
        # A rare pause of the machine would press everything else to the ground.
        panel.set_ylim(0, 1.25 * statistics.quantiles(values, n=50)[-1])
        panel.set_title(WATCHED[name], fontsize="medium")
        panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("epoch")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version that would make every drawing another file.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Train, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2000)
    started = time.monotonic()
    looks = watched(parser.parse_args().epochs)
    print(json.dumps({"seconds": round(time.monotonic() - started, 1), "looks": looks}))


if __name__ == "__main__":
    main()

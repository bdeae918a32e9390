"""What it costs to spread training over devices: time, traffic and memory per step and device.

    python benchmarks/scaling.py            # strong and weak scaling, pmap against jit: 4 minutes
    python benchmarks/scaling.py --large    # also 2e7 users cut over 4 devices; needs 12 GiB

The devices are virtual ones of one CPU: more of them than cores share the cores, so the times
show what spreading costs and not what it brings. Bytes are counted in the compiled program.
"""

import argparse
import functools
import os
import re
import statistics
from typing import Any

# Read when JAX starts its backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
from harness import report, timing
from jax.sharding import Mesh

from hlr_jax import devices, layout, models, optimizers, recommender, training
from hlr_jax.config import Config, ModelConfig, OptimizerConfig, SamplingConfig, TrainingConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.placement import Placement

BATCH, PER_DEVICE, STEPS, ROUNDS, PARTS = 4096, 1024, 10, 5, 8
USERS, ITEMS, LARGE = 20_000, 5_000, (200_000, 2_000_000, 20_000_000)
COUNTS = (1, 2, 8)
SIZES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}


def made_up(users: int, items: int, per_user: int) -> Dataset:
    """Users with equally many interactions, spread over all items."""
    rng = np.random.default_rng(0)
    first = rng.integers(items, size=(users, 1))
    own = np.sort((first + np.arange(per_user) * (items // per_user)) % items, axis=1)
    offsets = np.arange(users + 1, dtype=np.int64) * per_user
    train = Interactions(offsets, own.astype(np.int32).ravel(), items)
    nothing = Interactions(np.zeros(users + 1, np.int64), np.zeros(0, np.int32), items)
    return Dataset("made up", train, nothing, nothing, np.arange(users), np.arange(items))


class Contestant:
    """A model on a placement, ready to step."""

    def __init__(
        self, name: str, rows: str, batch: int, placement: Placement, dataset: Dataset
    ) -> None:
        self.config = Config(
            model=ModelConfig(name, dim=32, options={} if name == "cml" else {"slots": 20}),
            sampling=SamplingConfig(history_length=20),
            optimizer=OptimizerConfig(rows=rows),
            training=TrainingConfig(batch_size=batch),
        )
        self.placement, self.rest = placement, None
        self.model = models.build(name, 32, self.config.model.options)
        self.optimizer = optimizers.build(self.config.optimizer, self.config.training, 1)
        params = placement.new_params(jax.random.key(0), self.model, self.config)
        self.state = placement.state(params, self.optimizer)
        self.positives = recommender.training_positives(placement, dataset, self.config)
        self.order = placement.order(jax.random.key(1), self.positives, batch)
        self.key = jax.random.key(2)

    def step(self, steps: int = STEPS) -> None:
        """Take steps, and wait for them."""
        self.state = self.placement.advance(
            *(self.state, self.positives.source, self.order, self.key, 0, steps),
            *(self.model, self.optimizer, self.config),
        )
        jax.block_until_ready(self.state)

    def traffic(self) -> dict[str, int]:
        """Bytes that a device sends in a step, by kind, as rings of devices do it."""
        arguments = (self.state, self.positives.source, self.order, self.key, 0, 1)
        static = (self.model, self.optimizer, self.config)
        if self.placement.layout == layout.REPLICATED:
            text = training.train_steps.lower(*arguments, *static).compile().as_text()
        else:
            more = (self.placement.layout, self.placement.mesh)
            lowered = training.train_steps_on_mesh.lower(*arguments, *static, *more)
            text = lowered.compile().as_text()
        return collectives(text)

    def bytes_per_device(self) -> dict[str, int]:
        """The most that any device holds, by what it is."""
        tables = {name: self.state.params[name] for name in ("user", "item")}
        held = {name: _most_bytes(x) for name, x in tables.items()}
        held["optimizer"] = sum(map(_most_bytes, jax.tree.leaves(self.state.opt_state)))
        distinct = {id(x): x for x in jax.tree.leaves(self.positives.source)}
        held["interactions"] = sum(map(_most_bytes, distinct.values()))
        return held


def _most_bytes(x: jax.Array) -> int:
    return max(shard.data.nbytes for shard in x.addressable_shards)


def collectives(text: str) -> dict[str, int]:
    """Bytes that a device sends by each kind of collective of a compiled program."""
    sent: dict[str, int] = {}
    pattern = r"= (\(?[^=]*?\)?) (all-reduce|all-gather|reduce-scatter)(?:-start)?\((.*)"
    for shapes, kind, rest in re.findall(pattern, re.sub(r"/\*.*?\*/", "", text)):
        size = sum(
            4 * int(np.prod([int(n) for n in dims.split(",") if n], dtype=np.int64))
            for dims in re.findall(r"[fsu]32\[([\d,]*)\]", shapes)
        )
        group = re.search(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])", rest)
        count = 8
        if group:
            count = int(group[2]) if group[2] else len(group[1].split(","))
        whole = size * count if kind == "reduce-scatter" else size
        sent[kind] = sent.get(kind, 0) + SIZES[kind] * (count - 1) * whole // count
    return sent


def placed(mode: str, count: int, dataset: Dataset) -> Placement:
    """`replicated`, `users cut`, or `both cut` (items in two blocks)."""
    users, items = dataset.num_users, dataset.num_items
    if mode == "replicated":
        return Placement.replicated(count, users, items, PARTS)
    blocks = 2 if mode == "both cut" else 1
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(-1, blocks), layout.MESH)
    kind = layout.BOTH_CUT if blocks > 1 else layout.USERS_CUT
    return Placement(mesh, kind, users, items, PARTS)


def scaling(name: str, rows: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Strong (one batch for all) and weak scaling (a batch for each device)."""
    dataset, found = made_up(USERS, ITEMS, 20), []
    for kind in kinds:
        runs = {}
        for count in COUNTS:
            for mode in ("replicated", "users cut", "both cut")[: 3 if count > 1 else 2]:
                batch = BATCH if kind == "strong" else PER_DEVICE * count
                runs[mode, count] = Contestant(
                    name, rows, batch, placed(mode, count, dataset), dataset
                )
        times = timing.alternate({f"{m} {c}": runs[m, c].step for m, c in runs}, ROUNDS)
        for (mode, count), run in runs.items():
            seconds = times[f"{mode} {count}"]
            found.append(
                {
                    "model": name,
                    "rows": rows,
                    "scaling": kind,
                    "mode": mode,
                    "devices": count,
                    "batch": run.config.training.batch_size,
                    "ms_per_step": 1e3 * statistics.median(seconds) / STEPS,
                    "sent_bytes": run.traffic(),
                    "held_bytes": run.bytes_per_device(),
                }
            )
    return found


def dispatch(name: str) -> dict[str, Any]:
    """`pmap` on one device against plain `jit` of the same loop."""
    dataset = made_up(USERS, ITEMS, 20)
    ours = Contestant(name, "all", 1000, placed("replicated", 1, dataset), dataset)
    plain = Contestant(name, "all", 1000, placed("replicated", 1, dataset), dataset)
    device = jax.devices()[0]
    static = (ours.model, ours.optimizer, ours.config, layout.ALONE)
    source, order = jax.device_put((plain.positives.source, plain.order[0]), device)
    state = jax.device_put(plain.state, device)
    loop = jax.jit(training._steps, static_argnums=(6, 7, 8, 9), donate_argnums=0)

    def by_jit() -> None:
        nonlocal state
        state = loop(state, source, order, plain.key, 0, 50, *static)
        jax.block_until_ready(state)

    contestants = {"pmap": functools.partial(ours.step, 50), "jit": by_jit}
    times = timing.alternate(contestants, 2 * ROUNDS)
    ms = {kind: 20 * statistics.median(seconds) for kind, seconds in times.items()}
    return {"model": name, "ms_per_step": ms, "ratio": ms["pmap"] / ms["jit"]}


def large(users: int) -> dict[str, Any]:
    """CML, users cut over 4 devices, updating only the rows of a batch."""
    dataset = made_up(users, 100_000, 2)
    run = Contestant("cml", "touched", BATCH, placed("users cut", 4, dataset), dataset)
    run.step()
    loss = run.state.mean_loss()
    seconds = [timing.seconds(run.step) for _ in range(ROUNDS)]
    return {
        "users": users,
        "ms_per_step": 1e3 * statistics.median(seconds) / STEPS,
        "loss_at_first": loss,
        "held_bytes": run.bytes_per_device(),
        "user_bytes_of_all": 3 * 4 * 32 * users,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 2e7 users over 4 devices")
    parser.add_argument("--output", default=report.results_path("scaling.json"))
    arguments = parser.parse_args()
    devices.keep_compiled_programs()
    results: dict[str, Any] = report.provenance("jax", "jaxlib")
    if arguments.large:
        results["large"] = [large(users) for users in LARGE]
        for row in results["large"]:
            print(row, flush=True)
    results["dispatch"] = [dispatch(name) for name in ("cml", "hlr")]
    for row in results["dispatch"]:
        print(f"{row['model']}: pmap takes {row['ratio']:.3f} times as long as jit", flush=True)
    results["scaling"] = scaling("cml", "touched", ("strong", "weak"))
    report.write_results(arguments.output, results)
    results["scaling"] += scaling("hlr", "all", ("strong",))
    rows = [
        [
            *(row["model"], row["scaling"], row["mode"], str(row["devices"])),
            f"{row['ms_per_step']:.2f}",
            *(f"{row['sent_bytes'].get(kind, 0) / 1e6:.2f}" for kind in SIZES),
            f"{sum(row['held_bytes'].values()) / 1e6:.2f}",
        ]
        for row in results["scaling"]
    ]
    head = ["model", "scaling", "mode", "devices", "ms/step", *SIZES, "MB held"]
    print(report.table(head, rows, names=3))
    report.write_results(arguments.output, results)


if __name__ == "__main__":
    main()

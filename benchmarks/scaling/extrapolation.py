"""Apply the model of costs to sizes and machines that were not measured.

Rates of memory, arithmetic and network are the makers' figures. Latencies are assumptions.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import report
from benchmarks.scaling import cost_model
from benchmarks.scaling.cost_model import Step


@dataclasses.dataclass(frozen=True)
class Machine:
    """A device and its part of the network; bytes, and units per second.

    Attributes:
      arithmetic: flop/s of float32.
      network: what a device can send.
      collective: seconds that a collective takes besides its data.
      step: seconds that a step takes besides its work, mostly to launch some fifty kernels.
    """

    name: str
    memory: float
    bandwidth: float
    arithmetic: float
    network: float
    collective: float = 50e-6
    step: float = 200e-6


# H100 SXM, 400 Gbit/s InfiniBand for each. For TPUs only bfloat16 products are stated; a float32
# product takes six of them.
GPU = Machine("H100 80 GB", 80e9, 3.35e12, 67e12, 50e9)
V5E = Machine("TPU v5e", 16e9, 0.82e12, 197e12 / 6, 200e9)
V5P = Machine("TPU v5p", 95e9, 2.77e12, 459e12 / 6, 600e9)

# Users, items, interactions; devices; shards of items; updates.
CASES = (
    (GPU, 138_000, 13_000, 7_000_000, 1, 1, "dense"),
    (GPU, 10**7, 10**6, 10**9, 1, 1, "dense"),
    (GPU, 10**7, 10**6, 10**9, 1, 1, "sparse"),
    (GPU, 10**8, 10**7, 10**10, 8, 1, "sparse"),
    (GPU, 10**9, 10**8, 10**11, 64, 1, "sparse"),
    (GPU, 10**9, 10**8, 10**11, 64, 8, "sparse"),
    (V5E, 10**9, 10**8, 10**11, 256, 4, "sparse"),
    (V5P, 10**9, 10**8, 10**11, 256, 1, "sparse"),
)
BATCH, DIM, SLOTS, HISTORY = 1024, 32, 20, 20


def shares(fit: Mapping[str, Any], peaks: Mapping[str, float], cores: int) -> dict[str, float]:
    """Compute what part of a core's peak rates the fitted ones reach, at most 1.

    A use of a row counts as three passes: it is read, and its gradient added to a sum.

    Args:
      peaks: of all cores.
    """
    seconds = dict(cost_model.rates_of(fit).seconds)
    seconds["uses"] /= 3 * 4 * DIM
    peak = dict.fromkeys(("uses", "dense updates", "sparse updates"), 1e9 * peaks["copy_gbps"])
    peak["arithmetic"] = 1e9 * peaks["matmul_gflops"]
    return {
        name: min(1.0, cores / (seconds[name] * of_cores)) if seconds[name] else 1.0
        for name, of_cores in peak.items()
    }


def seconds_of_step(step: Step, machine: Machine) -> dict[str, float]:
    """Compute seconds by term, if the machine reaches its makers' figures."""
    sent = cost_model.sent(step)
    found = cost_model.work(step, sent, _collectives(step))
    in_memory = 1 / machine.bandwidth
    return {
        "step": machine.step,
        "collectives": found["collectives"] * machine.collective,
        "uses": found["uses"] * 3 * 4 * step.dim * in_memory,
        "arithmetic": found["arithmetic"] / machine.arithmetic,
        "dense updates": found["dense updates"] * in_memory,
        "sparse updates": found["sparse updates"] * in_memory,
        "network": sent / machine.network,
        # It is written, read, and added to a sum that is in the cache.
        "received": 2 * sent * in_memory,
    }


def _collectives(step: Step) -> int:
    """Return how many collectives the compiled program of such a step has."""
    if step.devices == 1:
        return 0
    if step.item_shards > 1:
        return 5
    return 1 if step.update == "dense" else 3 - step.shards_users


def tables(of_peaks: Mapping[str, float]) -> list[dict[str, Any]]:
    """Compute memory, traffic and time of each case, for CML and HLR.

    Args:
      of_peaks: `shares`, which other machines are assumed to reach as well.
    """
    found = []
    for model, (machine, users, items, interactions, count, shards, update) in itertools.product(
        ("cml", "hlr"), CASES
    ):
        has_memory = model == "hlr"
        step = Step(
            *(model, update, users, items, interactions, count, BATCH, count > 1, shards, DIM),
            slots=SLOTS if has_memory else 0,
            history=HISTORY if has_memory else 0,
        )
        held, by_term = cost_model.memory(step), seconds_of_step(step, machine)
        slower = {name: time / of_peaks.get(name, 1.0) for name, time in by_term.items()}
        steps = interactions / (count * BATCH)
        found.append(
            {
                **dataclasses.asdict(step),
                "machine": dataclasses.asdict(machine),
                "held_bytes": held,
                "fits": sum(held.values()) < machine.memory,
                "sent_bytes": cost_model.sent(step),
                "seconds": by_term,
                "seconds_at_shares_of_peak": slower,
                "epoch_hours": [steps * sum(x.values()) / 3600 for x in (by_term, slower)],
            }
        )
    return found


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out a line for each case."""
    head = ["model", "machine", "update", "users", "devices", "item shards", "GB held", "MB sent"]
    head += [f"ms: {name}" for name in rows[0]["seconds"]] + ["sum", "at shares of peak", "hours"]
    return report.table(head, [_cells(row) for row in rows], names=3)


def _cells(row: Mapping[str, Any]) -> list[str]:
    held = sum(row["held_bytes"].values()) / 1e9
    times = [row["seconds"], row["seconds_at_shares_of_peak"]]
    return [
        *(row["model"], row["machine"]["name"], row["update"]),
        *(f"{row['users']:.0e}", str(row["devices"]), str(row["item_shards"])),
        f"{held:.1f}" + ("" if row["fits"] else "!"),
        f"{row['sent_bytes'] / 1e6:.1f}",
        *(f"{1e3 * time:.3f}" for time in times[0].values()),
        *(f"{1e3 * sum(time.values()):.2f}" for time in times),
        "-".join(f"{hours:.1f}" for hours in row["epoch_hours"]),
    ]

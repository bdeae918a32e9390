"""Model the memory, traffic and time of a training step.

What a step does is counted from its sizes (`memory`, `sent`, `work`). The time that a unit of each
kind of work takes is fitted to measured rows (`fit`). `docs/scaling.md` explains the terms.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks import report
from benchmarks.shapes import Shape, useful_flops

Row = Mapping[str, Any]

# Adam reads gradient, row and two moments, and writes row and moments.
OPTIMIZER_PASSES = 7
# The terms of a step's time: the unit of each rate in words, and in seconds.
TERMS = {
    "step": ("ms for every step", 1e-3),
    "collectives": ("us for a device at a collective", 1e-6),
    "uses": ("ns for a use of a row", 1e-9),
    "arithmetic": ("ns for 1000 flop", 1e-12),
    "dense updates": ("ns for 1000 bytes passed over", 1e-12),
    "sparse updates": ("ns for 1000 bytes passed over", 1e-12),
    "exchange": ("ns for 1000 bytes sent", 1e-12),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """The sizes of a training step.

    Attributes:
      update: which rows Adam updates, `dense` or `sparse`.
      devices: how many there are.
      batch: triplets of one device.
      shards_users: whether users, their optimizer state and interactions are sharded.
      item_shards: into how many shards items are divided.
    """

    model: str
    update: str
    users: int
    items: int
    interactions: int
    devices: int
    batch: int
    shards_users: bool = False
    item_shards: int = 1
    dim: int = 32
    slots: int = 0
    negatives: int = 1
    history: int = 0

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Step":
        """Return the sizes of a measured row of `measure.py`."""
        same = ("model", "update", "users", "items", "interactions", "devices")
        return cls(
            **{name: row[name] for name in (*same, "dim", "slots", "history")},
            batch=row["batch"] // row["devices"],
            shards_users=row["mode"] != "replicated",
            item_shards=2 if row["mode"] == "both sharded" else 1,
        )

    @property
    def item_uses(self) -> int:
        """Uses of item rows by a device: positives, negatives, history."""
        return self.batch * (1 + self.negatives + self.history)

    @property
    def user_block(self) -> int:
        """User rows of a device."""
        return -(-self.users // self.devices) if self.shards_users else self.users

    @property
    def item_block(self) -> int:
        """Item rows of a device."""
        return -(-self.items // self.item_shards)

    @property
    def fetched(self) -> int:
        """Places of item rows that a device fetches where items are sharded."""
        return min(self.item_uses, self.items + 1)

    @property
    def updated(self) -> tuple[int, int]:
        """Places of user and item rows that a device has gradients of and updates."""
        if self.update == "dense":
            return self.user_block, self.item_block
        users = self.batch if self.shards_users else self.devices * self.batch
        items = self.devices * (self.fetched if self.item_shards > 1 else self.item_uses)
        return min(users, self.user_block), min(items, self.item_block)


def memory(step: Step) -> dict[str, int]:
    """Compute the bytes that a device holds."""
    d, share = step.dim, step.devices if step.shards_users else 1
    scratch = step.user_block + step.item_block if step.update == "sparse" else 0
    return {
        "users and moments": 12 * d * step.user_block,
        "items and moments": 12 * d * step.item_block,
        "scratch and offsets": 4 * (scratch + step.user_block),
        "interactions": 12 * -(-step.interactions // share),
        "order of an epoch": 4 * -(-step.interactions // step.devices),
    }


def sent(step: Step) -> float:
    """Compute the bytes of rows and ids that a device sends, without relation parameters."""
    devices, shards, fetched = step.devices, step.item_shards, step.fetched
    around = (devices - 1) / devices
    users, items = step.updated
    rows = ids = 0.0
    if not step.shards_users:
        rows += 2 * around * users
        ids += (devices - 1) * step.batch
    if shards == 1:
        rows += 2 * around * items
        ids += (devices - 1) * step.item_uses
    elif step.update == "sparse":
        rows += (shards - 1) * fetched + (devices - 1) * fetched
        ids += (shards - 1) * fetched + (devices - 1) * fetched
    else:
        per_shard = devices // shards
        rows += 2 * (shards - 1) * fetched + 2 * (per_shard - 1) / per_shard * items
        ids += (shards - 1) * fetched
    has_ids = step.update == "sparse" or shards > 1
    return 4 * (step.dim * rows + (ids if has_ids else 0))


def work(step: Step, sent_bytes: float, collectives: int) -> dict[str, float]:
    """Compute how much of each of `TERMS` a device does in a step."""
    shape = Shape(step.model, step.dim, step.slots, step.history, step.negatives, step.batch)
    passed = OPTIMIZER_PASSES * 4 * step.dim * sum(step.updated)
    return {
        "step": 1.0,
        "collectives": collectives,
        "uses": step.batch + step.item_uses,
        "arithmetic": useful_flops(shape),
        "dense updates": passed if step.update == "dense" else 0,
        "sparse updates": passed if step.update == "sparse" else 0,
        "exchange": sent_bytes,
    }


@dataclasses.dataclass(frozen=True)
class Rates:
    """How long a unit of work takes on a machine whose devices share its cores.

    Attributes:
      seconds: for a unit of each of `TERMS`.
      gain: how much faster than one core all cores together are.
    """

    seconds: Mapping[str, float]
    gain: float

    @classmethod
    def fitted(cls, rows: Sequence[Row], cores: int) -> "Rates":
        """Fit non-negative rates to the rows' shortest times, by least squares of relative errors.

        The model is linear except for the gain, for which all hundredths are tried.
        """
        gains = np.round(np.arange(1.0, cores + 0.005, 0.01), 2)
        return min((cls._with_gain(rows, float(gain)) for gain in gains), key=lambda x: x[0])[1]

    @classmethod
    def _with_gain(cls, rows: Sequence[Row], gain: float) -> tuple[float, "Rates"]:
        amounts = np.array([list(_shared_work(row, gain).values()) for row in rows])
        relative = amounts / np.array([_seconds(row) for row in rows])[:, None]
        scale = np.linalg.norm(relative, axis=0)
        scale[scale == 0] = 1.0
        found, residual = nnls(relative / scale, np.ones(len(rows)))
        return residual, cls(dict(zip(TERMS, (found / scale).tolist(), strict=True)), gain)

    def parts(self, row: Row) -> dict[str, float]:
        """Compute the seconds of a step by term."""
        amounts = _shared_work(row, self.gain)
        return {name: amount * self.seconds[name] for name, amount in amounts.items()}

    def errors(self, rows: Sequence[Row]) -> list[float]:
        """Compute the relative errors of the model: above 0 where it is slower than measured."""
        return [sum(self.parts(row).values()) / _seconds(row) - 1 for row in rows]


def _seconds(row: Row) -> float:
    """Return the shortest time of a step, which other programs disturb least."""
    return 1e-3 * row["milliseconds"]["min"]


def _shared_work(row: Row, gain: float) -> dict[str, float]:
    """Compute the work of all devices, as if one core did it: devices share the cores."""
    step = Step.of_row(row)
    found = work(step, sum(row["sent_bytes"].values()), row["collectives"])
    share = step.devices / gain if step.devices > 1 else 1.0
    return {name: amount * (1.0 if name == "step" else share) for name, amount in found.items()}


def fit(rows: Sequence[Row], others: Mapping[str, Sequence[Row]], cores: int) -> dict[str, Any]:
    """Fit rates to rows; report how well they explain these, and how well they predict others.

    Args:
      others: measured rows that the fit does not see.
    """
    rates = Rates.fitted(rows, cores)
    total = np.array([sum(rates.parts(row).values()) for row in rows])
    groups = sorted({(row["model"], row["update"], row["devices"]) for row in rows})

    def without(group: tuple[str, str, int]) -> Rates:
        kept = [r for r in rows if (r["model"], r["update"], r["devices"]) != group]
        return Rates.fitted(kept, cores)

    left_out = [without(group) for group in groups]

    def predicted(is_known: Callable[[Row], bool]) -> dict[str, float]:
        known = Rates.fitted([row for row in rows if is_known(row)], cores)
        return _summary(known.errors([row for row in rows if not is_known(row)]))

    return {
        "gain": rates.gain,
        "gain_range": _range(x.gain for x in left_out),
        "terms": {
            name: {
                "seconds": rates.seconds[name],
                # Without one model and number of devices.
                "range": _range(x.seconds[name] for x in left_out),
                "largest_share": float(
                    max(np.array([rates.parts(row)[name] for row in rows]) / total)
                ),
            }
            for name in TERMS
        },
        "errors": _summary(rates.errors(rows)),
        "errors_of_sent": _summary([_error_of_sent(row) for row in rows if row["collectives"]]),
        "predicted": {
            "8 devices from 1, 2 and 4": predicted(lambda row: row["devices"] < 8),
            "weak from strong scaling": predicted(lambda row: "strong" in row["scaling"]),
            **{name: _summary(rates.errors(found)) for name, found in others.items() if found},
        },
    }


def _error_of_sent(row: Row) -> float:
    """Compute the relative error of `sent` to what was counted in the compiled program."""
    return sent(Step.of_row(row)) / sum(row["sent_bytes"].values()) - 1


def rates_of(found: Mapping[str, Any]) -> Rates:
    """Return the rates that `fit` found."""
    return Rates({name: term["seconds"] for name, term in found["terms"].items()}, found["gain"])


def _range(values: Iterable[float]) -> list[float]:
    listed = list(values)
    return [min(listed), max(listed)]


def _summary(errors: Sequence[float]) -> dict[str, float]:
    """Summarise relative errors: median and worst size, and the signed median."""
    sizes = np.abs(errors)
    return {
        "median": float(np.median(sizes)),
        "worst": float(sizes.max()),
        "middle": float(np.median(errors)),
        "rows": len(errors),
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Lay out rates and errors as tables."""
    rates = [
        [
            name,
            f"{term['seconds'] / TERMS[name][1]:.3g}",
            " to ".join(f"{end / TERMS[name][1]:.3g}" for end in term["range"]),
            TERMS[name][0],
            f"{100 * term['largest_share']:.0f} %",
        ]
        for name, term in found["terms"].items()
    ]
    low, high = found["gain_range"]
    rates.append(["all cores", f"{found['gain']:.2f}", f"{low:.2f} to {high:.2f}", "of one", ""])
    errors = [
        [name, *(f"{100 * error[kind]:.0f} %" for kind in ("median", "worst")), str(error["rows"])]
        for name, error in {
            "bytes by formula": found["errors_of_sent"],
            "fitted rows": found["errors"],
            **found["predicted"],
        }.items()
    ]
    return "\n\n".join(
        [
            report.table(["term", "rate", "range", "unit", "largest share"], rates),
            report.table(["relative error of", "median", "worst", "rows"], errors),
        ]
    )

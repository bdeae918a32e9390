"""What a comparison has found: entries, tests of their differences, and words for them."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hlr_jax import files
from hlr_jax.comparison.folders import Plan
from hlr_jax.comparison.words import decimal, metric_name, p_value, signed
from hlr_jax.evaluation import metrics
from hlr_jax.runs.diagnosis import Diagnosis, of_seeds

LEVEL = 0.05
# Verdicts of fewer say so.
SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model or baseline that is compared.

    Attributes:
      kind: `run` or `baseline`.
      values: by metric `[users]`, each the mean over seeds; NaN where the metric of a seed leaves
        the user out.
      of_seeds: by metric, the mean of each seed over users.
      means: by metric; `intervals`: of 95 %, by a bootstrap of the users.
      diagnoses: of the relation of each run, if it has one.
    """

    name: str
    kind: str
    label: str
    folders: Sequence[str]
    seeds: Sequence[int]
    values: Mapping[str, np.ndarray]
    of_seeds: Mapping[str, Sequence[float]]
    means: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]]
    diagnoses: Sequence[Diagnosis]

    @property
    def is_constant(self) -> bool:
        """Whether the relation of these runs is a constant."""
        return bool(self.diagnoses) and self._kind[0] == "constant"

    @property
    def relation(self) -> str:
        """What the relation of these runs is, in a word or two; `-` if they have none."""
        return self._kind[1] if self.diagnoses else "-"

    @property
    def _kind(self) -> tuple[str, str]:
        return of_seeds([found.moves for found in self.diagnoses])

    def users(self, metric: str) -> int:
        """Count the users that the metric does not leave out."""
        return int((~np.isnan(self.values[metric])).sum())


class Pair(NamedTuple):
    """A test of two entries in a metric.

    Attributes:
      users: whom both have a value of.
      difference: mean of ours minus theirs; `interval`: of 95 %.
      p_value: of the two-sided paired t-test; `p_holm`: corrected for the number of tests in this
        metric.
      better: share of the users for whom ours is better; `worse`: for whom it is worse.
    """

    ours: str
    theirs: str
    metric: str
    users: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    better: float
    worse: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Entries side by side.

    Attributes:
      plan: what was measured, and how; the first metric is the one that verdicts are of.
      dataset: name of the data set.
      reference: name of the entry that the others are tested against; "all" tests all pairs.
      pairs: every test, metric by metric.
    """

    plan: Plan
    dataset: str
    reference: str
    entries: Sequence[Entry]
    pairs: Sequence[Pair]

    @property
    def frame(self) -> pl.DataFrame:
        """A row for each entry, metric and test; numbers of tests are missing where there is none.

        Columns: `name`, `kind`, `seeds`, `users`, `relation`, `metric`, `mean`, `low`, `high`,
        `against`, `difference`, `difference_low`, `difference_high`, `p`, `p_holm`, `better`,
        `worse`.
        """
        rows = []
        for entry in self.entries:
            for metric in self.plan.metrics:
                low, high = entry.intervals[metric]
                row = {
                    "name": entry.name,
                    "kind": entry.kind,
                    "seeds": len(entry.seeds),
                    "users": entry.users(metric),
                    "relation": entry.relation,
                    "metric": metric,
                    "mean": entry.means[metric],
                    "low": low,
                    "high": high,
                }
                tests = [p for p in self.pairs if (p.ours, p.metric) == (entry.name, metric)]
                rows += [row | _columns(test) for test in tests] or [row]
        return pl.DataFrame(rows, schema=_SCHEMA)

    @property
    def caption(self) -> str:
        """What the numbers are, in a line."""
        tests = len(self.pairs) // len(self.plan.metrics)
        return (
            f"{self.dataset}, {self.plan.split}, {self.plan.protocol} ranking; 95 % intervals are "
            "over users, not seeds; "
            f"two-sided paired t-tests, Holm's correction for {tests} in each metric; beside what "
            "a relation is: by how much of their spread its mean, in its place, moves distances"
        )

    @property
    def verdicts(self) -> list[str]:
        """A line for each test in the first metric, those of the runs last."""
        by_name = {entry.name: entry for entry in self.entries}
        pairs = [pair for pair in self.pairs if pair.metric == self.plan.metrics[0]]
        pairs.sort(key=lambda pair: by_name[pair.ours].kind == "run")
        return [_verdict(pair, by_name[pair.ours], by_name[pair.theirs]) for pair in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the values of users, as plain JSON."""
        hidden = ("values", "diagnoses")
        return {
            "dataset": self.dataset,
            **self.plan._asdict(),
            "metrics": list(self.plan.metrics),
            "reference": self.reference,
            "entries": [
                {k: v for k, v in vars(entry).items() if k not in hidden}
                | {"users": {metric: entry.users(metric) for metric in self.plan.metrics}}
                | {"diagnoses": [found.as_dict() for found in entry.diagnoses]}
                for entry in self.entries
            ],
            "tests": [pair._asdict() for pair in self.pairs],
            "verdicts": self.verdicts,
        }

    def write(self, path: str | pathlib.Path) -> None:
        """Write a JSON file of everything, and a .csv file of `frame` beside it."""
        path = pathlib.Path(path)
        files.write_json(path, self.as_dict())
        with files.replacing(path.with_suffix(".csv")) as unfinished:
            self.frame.write_csv(unfinished)

    def draw(self, path: str | pathlib.Path) -> None:
        """Draw means and differences with their intervals to a .png, .pdf or .svg file.

        Raises:
          InputError: matplotlib is not installed.
        """
        from hlr_jax.comparison import figure

        figure.draw(pathlib.Path(path), self)

    def means_table(self) -> pl.DataFrame:
        """Return a row for each entry, with intervals beside means, to be printed."""
        first = self.plan.metrics[0]
        rows = [
            {"name": entry.name, "seeds": len(entry.seeds), "users": entry.users(first)}
            | {metric_name(metric): _mean(entry, metric) for metric in self.plan.metrics}
            | {"relation": entry.relation}
            for entry in self.entries
        ]
        return pl.DataFrame(rows)

    def tests_table(self) -> pl.DataFrame:
        """Return a row for each test, to be printed."""
        rows = [
            {
                "name": pair.ours,
                "minus": pair.theirs,
                "metric": metric_name(pair.metric),
                "difference": f"{signed(pair.difference)} {_interval(pair.interval)}",
                "Holm p": p_value(pair.p_holm).removeprefix("= "),
                "users": pair.users,
                "better": f"{pair.better:.0%}",
                "worse": f"{pair.worse:.0%}",
            }
            for pair in self.pairs
        ]
        return pl.DataFrame(rows)


_SCHEMA: Mapping[str, Any] = {
    "name": pl.String,
    "kind": pl.String,
    "seeds": pl.Int64,
    "users": pl.Int64,
    "relation": pl.String,
    "metric": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "against": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "better": pl.Float64,
    "worse": pl.Float64,
}


def paired_tests(entries: Sequence[Entry], metric: str, reference: str) -> list[Pair]:
    """Test the other entries against the reference, or each against those before it, in a metric.

    Returns:
      The pairs, with p-values corrected for their number.
    """
    pairs = [
        _pair(entry, other, metric)
        for place, entry in enumerate(entries)
        for other in (entries[:place] if reference == "all" else entries)
        if reference in ("all", other.name) and other is not entry
    ]
    corrected = metrics.holm([pair.p_value for pair in pairs])
    return [pair._replace(p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def _pair(ours: Entry, theirs: Entry, metric: str) -> Pair:
    a, b = ours.values[metric], theirs.values[metric]
    known = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[known], b[known]
    test = metrics.paired_t_test(a, b)
    better, worse = float((a > b).mean()), float((a < b).mean())
    p = test.p_value
    names = (ours.name, theirs.name, metric, len(a))
    return Pair(*names, test.difference, test.interval, p, p, better, worse)


def _columns(pair: Pair) -> dict[str, Any]:
    return {
        "against": pair.theirs,
        "difference": pair.difference,
        "difference_low": pair.interval[0],
        "difference_high": pair.interval[1],
        "p": pair.p_value,
        "p_holm": pair.p_holm,
        "better": pair.better,
        "worse": pair.worse,
    }


def _verdict(pair: Pair, ours: Entry, theirs: Entry) -> str:
    is_told = pair.p_holm < LEVEL
    if not is_told:
        outcome = f"no difference that {pair.users:,} users can tell"
    elif ours.kind == "run":
        outcome = "it pays" if pair.difference > 0 else "it costs"
    else:
        outcome = "it is better" if pair.difference > 0 else "it is worse"
    if ours.is_constant:
        but = "but" if is_told and pair.difference > 0 else "and"
        outcome += f", {but} its relation is a constant"
    seeds = [len(entry.seeds) for entry in (ours, theirs) if entry.kind == "run"]
    if is_told and min(seeds, default=SEEDS) < SEEDS:
        few = "1 seed" if min(seeds) == 1 else f"{min(seeds)} seeds"
        outcome += f", of {few}; take {SEEDS}, they may differ by as much"
    return (
        f"{pair.ours}: {metric_name(pair.metric)} {signed(pair.difference)} "
        f"{_interval(pair.interval)} over {pair.theirs} (Holm p {p_value(pair.p_holm)}): {outcome}"
    )


def _mean(entry: Entry, metric: str) -> str:
    low, high = entry.intervals[metric]
    return f"{decimal(entry.means[metric])} [{decimal(low)}, {decimal(high)}]"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{signed(low)}, {signed(high)}]"

"""What a sweep found, and the files that tell of it.

trials.csv       a row per trial
best.json        the configuration of the best trial; best.py is a --config file of it
importance.png   which parameters mattered, and the values over the trials
"""

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence

import polars as pl

from hlr_jax import config as configs
from hlr_jax import files
from hlr_jax.config import Config
from hlr_jax.errors import InputError
from hlr_jax.tuning import search_space
from hlr_jax.tuning.search_space import Space, Value

try:
    from matplotlib.figure import Figure
except ImportError:
    raise InputError("a sweep needs matplotlib: pip install 'hlr_jax[sweep]'") from None

_BEST = '''"""The best trial of a sweep, number {number}: {objective} {value:.4f} on validation.

{command}
"""

import pathlib

from ml_collections import ConfigDict

from hlr_jax import config, files


def get_config() -> ConfigDict:
    values = files.read_json_object(pathlib.Path(__file__).with_name("best.json"))
    return config.as_config_dict(config.from_config_dict(values))
'''


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    Attributes:
      state: complete; pruned: stopped as worse than others; timeout: stopped when the sweep's time
        was over; diverged; refused: its values do not go together; interrupted: does not count.
      value: of the objective on validation, in the best epoch; None without a first epoch.
      best_epoch: from 1; 0 without a value.
      seconds: it took; None if interrupted.
      reason: why it diverged or was refused.
      parameters: what it tried; only fields that its model uses.
    """

    number: int
    state: str
    value: float | None
    best_epoch: int
    seconds: float | None
    reason: str
    parameters: Mapping[str, Value]

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that were asked for."""
        return self.state != "interrupted"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that a sweep has found so far.

    Attributes:
      config: what is not varied.
      trials: in the order of their numbers.
    """

    config: Config
    space: Space
    objective: str
    trials: Sequence[Trial]

    @property
    def sign(self) -> int:
        """1 if the objective is to be high, -1 if it is to be low."""
        return -1 if self.objective == "loss" else 1

    @property
    def counted(self) -> list[Trial]:
        """Without those that were interrupted."""
        return [trial for trial in self.trials if trial.counts]

    @property
    def seconds(self) -> float:
        """That the counted trials took together."""
        return math.fsum(trial.seconds or 0.0 for trial in self.counted)

    @property
    def ranked(self) -> list[Trial]:
        """Those that gave a value and can be trained to their end, best first."""
        kept = [trial for trial in self.counted if trial.state != "diverged"]
        return sorted(
            (trial for trial in kept if trial.value is not None),
            key=lambda trial: (-self.sign * (trial.value or 0.0), trial.number),
        )

    @property
    def best_config(self) -> Config:
        """The configuration of the best trial, once there is one."""
        return search_space.with_values(self.config, self.ranked[0].parameters)

    def table(self, trials: Sequence[Trial]) -> pl.DataFrame:
        """A row per trial; a column of every varied field, empty where it was not used."""
        columns = {
            "trial": [trial.number for trial in trials],
            "state": [trial.state for trial in trials],
            self.objective: [trial.value for trial in trials],
            "best_epoch": [trial.best_epoch or None for trial in trials],
            "seconds": [trial.seconds and round(trial.seconds, 3) for trial in trials],
        }
        columns |= {f: [trial.parameters.get(f) for trial in trials] for f in self.space}
        return pl.DataFrame(columns, strict=False)


def command(folder: pathlib.Path) -> str:
    """What trains the best trial's configuration, with checkpoints and test metrics."""
    config, workdir = shlex.quote(str(folder / "best.py")), shlex.quote(str(folder / "best"))
    return f"python launch/train.py --config={config} --workdir={workdir}"


def line(trial: Trial, outcome: Outcome) -> str:
    """A finished trial in one line."""
    parts = [f"trial {trial.number} {trial.state}"]
    if trial.value is not None:
        parts.append(f"{outcome.objective} {trial.value:.4f} at epoch {trial.best_epoch}")
    if trial.seconds is not None:
        parts.append(f"{trial.seconds:.1f} s")
    if outcome.ranked:
        best = outcome.ranked[0]
        parts.append(f"best {best.value:.4f} (trial {best.number})")
    parts.append(
        " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in trial.parameters.items()
        )
    )
    if trial.reason:
        parts.append(trial.reason)
    return "; ".join(parts)


def write(folder: pathlib.Path, outcome: Outcome) -> None:
    """Write `trials.csv` and, once a trial has a value, `best.json` and `best.py`."""
    with files.replacing(folder / "trials.csv") as unfinished:
        outcome.table(outcome.trials).write_csv(unfinished)
    if outcome.ranked:
        best = outcome.ranked[0]
        files.write_json(folder / "best.json", configs.as_dict(outcome.best_config))
        text = _BEST.format(
            number=best.number,
            objective=outcome.objective,
            value=best.value,
            command=command(folder),
        )
        files.write_text(folder / "best.py", text)


def draw(path: pathlib.Path, outcome: Outcome, importances: Mapping[str, float]) -> None:
    """Write a picture: importances of the parameters, and the trials' values.

    Args:
      importances: by field; empty where too few trials were completed to tell.
    """
    figure = Figure(figsize=(10, 1.5 + max(2.5, 0.3 * len(outcome.space))), layout="constrained")
    bars, dots = figure.subplots(1, 2)
    names = sorted(importances, key=lambda name: importances[name])
    bars.barh(names, [importances[name] for name in names])
    bars.set_xlabel("importance (PED-ANOVA), of 1 in all")
    num_complete = sum(trial.state == "complete" for trial in outcome.trials)
    bars.set_title(f"{num_complete} completed trials" + ("" if names else ": too few to tell"))
    for state in dict.fromkeys(trial.state for trial in outcome.counted):
        shown = [t for t in outcome.trials if t.state == state and t.value is not None]
        filled = {} if state == "complete" else {"facecolors": "none", "edgecolors": "gray"}
        dots.scatter([t.number for t in shown], [t.value for t in shown], label=state, **filled)
    best, numbers, values = -math.inf, [], []
    for trial in sorted(outcome.ranked, key=lambda trial: trial.number):
        best = max(best, outcome.sign * (trial.value or 0.0))
        numbers.append(trial.number)
        values.append(outcome.sign * best)
    dots.step(numbers, values, where="post", label="best so far")
    dots.set_xlabel("trial")
    dots.set_ylabel(f"{outcome.objective} on validation")
    dots.legend()
    with files.replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)

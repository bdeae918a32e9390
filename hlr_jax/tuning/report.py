"""Write the results of a sweep to files.

trials.csv       a row per trial
best.json        the configuration of the best trial; best.py is a --config file of it
importance.png   how important each parameter is, and the values over the trials
"""

import math
import pathlib
import shlex
from collections.abc import Mapping

from hlr_jax import config as configs
from hlr_jax import files
from hlr_jax.errors import InputError
from hlr_jax.tuning.outcome import Outcome, Trial

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


def command(folder: pathlib.Path) -> str:
    """Return the command that trains the best configuration, with checkpoints and test metrics."""
    config, workdir = shlex.quote(str(folder / "best.py")), shlex.quote(str(folder / "best"))
    return f"hlr-jax train --config={config} --workdir={workdir}"


def line(trial: Trial, outcome: Outcome) -> str:
    """Describe a finished trial in one line."""
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
    """Plot the importance of each parameter, and the values of the trials.

    Args:
      importances: by field; empty if too few trials were completed to estimate them.
    """
    figure = Figure(figsize=(10, 1.5 + max(2.5, 0.3 * len(outcome.space))), layout="constrained")
    bars, dots = figure.subplots(1, 2)
    names = sorted(importances, key=lambda name: importances[name])
    bars.barh(names, [importances[name] for name in names])
    bars.set_xlabel("importance (PED-ANOVA), of 1 in all")
    num_complete = sum(trial.state == "complete" for trial in outcome.trials)
    bars.set_title(
        f"{num_complete} completed trials" + ("" if names else ", too few for importances")
    )
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

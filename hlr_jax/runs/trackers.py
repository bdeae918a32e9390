"""Tell other programs of a run: its start, each epoch, its end.

Whatever a tracker raises ends the run: nothing is lost silently.
"""

import csv
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.files import write_text
from hlr_jax.parallel import processes
from hlr_jax.training.loop import Record

# Parameters of MLflow have no more letters.
_LONGEST = 500


class Start(NamedTuple):
    """What is known before the first epoch.

    Attributes:
      config: of the run.
      dataset: that it trains on.
      parameters: how many there are of `user` and `item` tables and of the `relation`.
    """

    config: Config
    dataset: Dataset
    parameters: Mapping[str, int]

    def settings(self) -> dict[str, Any]:
        """List all fields by name, and the sizes of the data and of the model."""
        data = self.dataset
        sizes = {"users": data.num_users, "items": data.num_items, **data.split_sizes}
        counted = {"dataset": sizes, "parameters": self.parameters}
        return configs.flat(self.config) | {
            f"{of}.{name}": n for of, numbers in counted.items() for name, n in numbers.items()
        }


class Callback:
    """Base of what is told of a run; override what is wanted.

    Of a refit only its beginning is told, and its end is the end.
    """

    def on_start(self, start: Start) -> None:
        """Receive what is known before the first epoch; also of a run that is resumed."""

    def on_epoch(self, record: Record) -> None:
        """Receive one flat record for each epoch, as in `metrics.jsonl`.

        An exception that it raises ends the training.
        """

    def on_refit(self, epochs: int) -> None:
        """Receive for how many epochs the model is trained again, on validation too."""

    def on_end(self, results: Mapping[str, Any]) -> None:
        """Receive numbers of the finished run by name, or `error` where it failed."""


class Each(Callback):
    """Calls a function with the record of each epoch."""

    def __init__(self, function: Callable[[Record], Any]) -> None:
        self._function = function

    def on_epoch(self, record: Record) -> None:
        self._function(record)


class Together(Callback):
    """Tells several, in their order."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise InputError(
                    f"callbacks: {callback!r} is no hlr_jax.Callback; wrap a function of records "
                    "in hlr_jax.runs.trackers.Each"
                )
        self._callbacks = callbacks

    def on_start(self, start: Start) -> None:
        for callback in self._callbacks:
            callback.on_start(start)

    def on_epoch(self, record: Record) -> None:
        for callback in self._callbacks:
            callback.on_epoch(record)

    def on_refit(self, epochs: int) -> None:
        for callback in self._callbacks:
            callback.on_refit(epochs)

    def on_end(self, results: Mapping[str, Any]) -> None:
        for callback in self._callbacks:
            callback.on_end(results)


class Csv(Callback):
    """Writes a table with a line for each epoch. What a resumed run does again replaces it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._records: dict[int, Record] = {}

    def on_start(self, start: Start) -> None:
        if self._path.is_file():
            with open(self._path, newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    self._records[int(line["epoch"])] = {k: float(v) for k, v in line.items() if v}

    def on_epoch(self, record: Record) -> None:
        epoch = int(record["epoch"])
        self._records = {n: r for n, r in self._records.items() if n < epoch} | {epoch: record}
        names = dict.fromkeys(name for one in self._records.values() for name in one)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        for one in self._records.values():
            writer.writerow({**one, "epoch": int(one["epoch"])})
        write_text(self._path, text.getvalue())


class TensorBoard(Callback):
    """Writes events for TensorBoard, by tensorboardX. Needs the extra `tensorboard`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise InputError("TensorBoard needs pip install 'hlr_jax[tensorboard]'") from None
        self._events: Any = SummaryWriter(os.fspath(folder))

    def on_epoch(self, record: Record) -> None:
        for name, value in record.items():
            self._events.add_scalar(name, value, record["epoch"])
        self._events.flush()

    def on_end(self, results: Mapping[str, Any]) -> None:
        self._events.close()


class MLflow(Callback):
    """Logs a run of MLflow: settings as parameters, epochs as steps. Needs the extra `mlflow`.

    Where it logs to is MLflow's own setting, as its environment variable MLFLOW_TRACKING_URI.
    """

    def __init__(self, experiment: str = "hlr_jax", run_name: str | None = None) -> None:
        try:
            import mlflow
        except ImportError:
            raise InputError("MLflow needs pip install 'hlr_jax[mlflow]'") from None
        self._mlflow: Any = mlflow
        self._experiment, self._run_name = experiment, run_name

    def on_start(self, start: Start) -> None:
        self._mlflow.set_experiment(self._experiment)
        self._mlflow.start_run(run_name=self._run_name)
        settings = start.settings().items()
        self._mlflow.log_params({name: str(value)[:_LONGEST] for name, value in settings})

    def on_epoch(self, record: Record) -> None:
        values = {_plain(name): float(value) for name, value in record.items() if name != "epoch"}
        self._mlflow.log_metrics(values, step=int(record["epoch"]))

    def on_end(self, results: Mapping[str, Any]) -> None:
        numbers = {k: float(v) for k, v in results.items() if isinstance(v, int | float)}
        self._mlflow.log_metrics({_plain(name): value for name, value in numbers.items()})
        self._mlflow.end_run("FAILED" if "error" in results else "FINISHED")


class WandB(Callback):
    """Logs a run of Weights & Biases. Needs the extra `wandb`.

    Whether it uploads is its own setting, as its environment variable WANDB_MODE.
    """

    def __init__(self, project: str = "hlr_jax", **settings: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("Weights & Biases needs pip install 'hlr_jax[wandb]'") from None
        self._wandb: Any = wandb
        self._settings = {"project": project, **settings}
        self._run: Any = None

    def on_start(self, start: Start) -> None:
        self._run = self._wandb.init(config=start.settings(), **self._settings)

    def on_epoch(self, record: Record) -> None:
        self._run.log(dict(record), step=int(record["epoch"]))

    def on_end(self, results: Mapping[str, Any]) -> None:
        self._run.summary.update({k: v for k, v in results.items() if isinstance(v, int | float)})
        self._run.finish(exit_code=1 if "error" in results else 0)


def _plain(name: str) -> str:
    """Name a metric as MLflow allows it, which knows no `@`."""
    return name.replace("@", "_at_")


# By what `--trackers` calls them; each is given the folder of the run.
NAMED: Mapping[str, Callable[[pathlib.Path], Callback]] = {
    "csv": lambda workdir: Csv(workdir / "epochs.csv"),
    "tensorboard": lambda workdir: TensorBoard(workdir / "tensorboard"),
    "mlflow": lambda workdir: MLflow(run_name=workdir.name),
    "wandb": lambda workdir: WandB(name=workdir.name),
}


def named(names: Sequence[str], workdir: str | os.PathLike[str]) -> list[Callback]:
    """Build trackers by name; of several processes of a run the first alone has any.

    Raises:
      InputError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in NAMED:
            raise InputError(f"--trackers={name}: use {', '.join(NAMED)}")
    if not processes.is_first():
        return []
    return [NAMED[name](pathlib.Path(workdir)) for name in names]

"""Open the folder of a run: start or resume a run in it, and read what it holds."""

import pathlib

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.data import loading, prepared
from hlr_jax.data.arrays import from_arrays, to_arrays
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.files import read_json_lines, read_json_object, write_json, write_json_lines
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training.loop import OnEpoch, Record, ignore_epoch

# Fields a run may be resumed with other values of, because they change neither a step nor the
# choice of the best epoch; see `_may_change`.
_CHANGEABLE = (
    "training.epochs",
    "training.patience",
    "training.checkpoint_minutes",
    "training.on_nonfinite",
    "training.rollbacks",
    "model.implementation",
    "evaluation.",
    "sharding.",
)

# The folder of a run that keeps what it was trained and is tested on.
_DATA = "data"


def load_config(workdir: pathlib.Path) -> Config:
    """Read the configuration that a run was trained with; its `imports` are imported.

    Raises:
      InputError: the folder holds no run, or its config.json is damaged or of an older version.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; give the --workdir of a finished training run")
    values = read_json_object(path)
    try:
        return configs.from_config_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def stored_data(workdir: pathlib.Path, config: Config) -> Dataset:
    """Read the data that a run was trained on, as its folder keeps them.

    A folder of an earlier version of the library keeps none: then they are what `config.data`
    says, if that has not changed.

    Raises:
      InputError: they are neither in the folder nor where they came from.
    """
    path = workdir / "dataset.json"
    name = read_json_object(path).get("name", "") if path.is_file() else ""
    dataset = from_arrays(str(name), prepared.restore(workdir / _DATA))
    if dataset is not None:
        return dataset
    dataset = loading.load(config.data)
    check_same_data(workdir, dataset)
    return dataset


def refit_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Name the folder in which a run with `config.training.refit` trains its second model."""
    return workdir / "refit"


def finished_refit(workdir: pathlib.Path) -> pathlib.Path:
    """Find the folder of the second model of a run, and check that it has been trained to the end.

    Raises:
      InputError: there is none, or its training was interrupted.
    """
    folder = refit_folder(workdir)
    epochs = load_config(folder).training.epochs
    # Without validation every epoch is the best so far: that there is a model says nothing. Nor
    # does the log alone: checkpoints are written after it, in the background.
    done = min(_epochs_of(folder), Checkpoints(folder / "checkpoints").progress().epochs)
    if done < epochs:
        raise InputError(
            f"{folder}: was trained for {done} of {epochs} epochs; the same training command "
            "finishes it"
        )
    return folder


def check_finished(workdir: pathlib.Path) -> int:
    """Check that a run has been trained to its end, but for a refit; return its epochs.

    Raises:
      InputError: it was interrupted.
    """
    training = load_config(workdir).training
    progress = Checkpoints(workdir / "checkpoints").progress()
    if not progress.is_over(training):
        raise InputError(
            f"{workdir}: was trained for {progress.epochs} of {training.epochs} epochs; the same "
            "training command finishes it"
        )
    return progress.epochs


def _epochs_of(workdir: pathlib.Path) -> int:
    """Read for how many epochs a run has been trained; 0 where there is none.

    Raises:
      InputError: metrics.jsonl is damaged.
    """
    path = workdir / "metrics.jsonl"
    try:
        return max((int(record["epoch"]) for record in read_json_lines(path)), default=0)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: a line has no number of an epoch; repair or delete the file"
        ) from None


def check_same_data(workdir: pathlib.Path, dataset: Dataset) -> None:
    """Raise InputError if the run in `workdir` was trained on other data."""
    path = workdir / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; give the --workdir of a training run")
    if read_json_object(path).get("digest") != dataset.digest:
        raise InputError(
            f"{workdir}: the run was trained on other data than data set {dataset.name} "
            "is now; restore the data, or train again in another folder"
        )


def open_run(
    workdir: pathlib.Path, config: Config, dataset: Dataset, placement: Placement
) -> tuple[Checkpoints, OnEpoch]:
    """Start or resume a run in a folder.

    Raises:
      InputError: the folder holds a run of another configuration, of more epochs or on other
        data, holds damaged files, or cannot be made.
    """
    if (workdir / "config.json").exists():
        # With the options that were left out at their defaults, as in the file.
        complete = configs.from_config_dict(configs.as_dict(config))
        _check_same_run(complete, load_config(workdir), workdir)
        check_same_data(workdir, dataset)
    trained = _epochs_of(workdir)  # Refused now if damaged, not after an epoch.
    if config.training.epochs < trained:
        raise InputError(
            f"--workdir={workdir} holds a run of {trained} epochs; use another folder, or "
            f"config.training.epochs={trained} or more, not {config.training.epochs}"
        )
    store = Checkpoints(workdir / "checkpoints", placement.used_rows)
    processes.wait_for_all("working directory read")
    if not processes.is_first():
        return store, ignore_epoch
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "dataset.json", {"name": dataset.name, "digest": dataset.digest})
        write_json(workdir / "config.json", configs.as_dict(config))
        if not (workdir / _DATA).exists():
            prepared.save(workdir / _DATA, to_arrays(dataset), {"digest": dataset.digest})
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be written to ({error.strerror})") from None
    return store, _epoch_log(workdir)


def _check_same_run(config: Config, stored: Config, workdir: pathlib.Path) -> None:
    new, old = configs.flat(config), configs.flat(stored)
    for field in sorted(new.keys() | old.keys(), key=lambda field: (field != "model.name", field)):
        if new.get(field) != old.get(field) and not _may_change(field, config):
            raise InputError(
                f"--workdir={workdir} holds a run with config.{field}={old.get(field)!r}, not "
                f"{new.get(field)!r}; use another folder, or the same configuration to resume it"
            )


def _may_change(field: str, config: Config) -> bool:
    if field == "training.epochs":
        # A cosine schedule may be stretched over all epochs.
        return config.optimizer.schedule != "cosine" or config.optimizer.schedule_epochs > 0
    if field == "evaluation.history_length":
        return config.training.selection_metric == "loss"
    return field.startswith(_CHANGEABLE)


def _epoch_log(workdir: pathlib.Path) -> OnEpoch:
    """Build the function that adds an epoch to `metrics.jsonl`."""
    path = workdir / "metrics.jsonl"

    def log(record: Record) -> None:
        # What a resumed run does again replaces what it had written.
        earlier = [r for r in read_json_lines(path) if r["epoch"] < record["epoch"]]
        write_json_lines(path, [*earlier, record])

    return log

"""Open the folder of a run: start or resume a run in it, and read what it holds."""

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.data import loading, prepared
from hlr_jax.data.arrays import from_arrays, to_arrays
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.files import (
    append_json_line,
    read_json_lines,
    read_json_object,
    write_json,
    write_json_lines,
)
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.identity import Identity, check_same_run
from hlr_jax.training.loop import OnEpoch, ignore_epoch
from hlr_jax.training.store import Progress, checksum_of

# The folder of a run that keeps what it was trained and is tested on.
_DATA = "data"
# The fields of dataset.json.
_OF_DATA = {"name": str, "digest": str}


def load_config(workdir: pathlib.Path) -> Config:
    """Read the configuration that a run was trained with; its `imports` are imported.

    Raises:
      InputError: the folder holds no run, or its config.json is damaged or of an older version.
    """
    path = workdir / "config.json"
    _check_exists(path, "finished ")
    values = _read(path, {})
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
    name = _read(path, _OF_DATA).get("name", "") if path.is_file() else ""
    dataset = from_arrays(name, prepared.restore(workdir / _DATA))
    if dataset is not None:
        return dataset
    dataset = loading.load(config.data)
    check_same_data(workdir, dataset)
    return dataset


def refit_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Name the folder in which a run with `config.training.refit` trains its second model."""
    return workdir / "refit"


def check_done(folder: pathlib.Path, config: Config, progress: Progress) -> None:
    """Check that the second model of a run has been trained to the end.

    Without validation every epoch is the best so far: that there is a model says nothing. Nor does
    the log: checkpoints are written after it, in the background.

    Raises:
      InputError: its training was interrupted.
    """
    done, epochs = progress.epochs, config.training.epochs
    if done < epochs:
        raise InputError(
            f"{folder}: was trained for {done} of {epochs} epochs; the same training command "
            "finishes it"
        )


def check_finished(workdir: pathlib.Path) -> int:
    """Check that a run has been trained to its end, but for a refit; return its epochs.

    Raises:
      InputError: it was interrupted.
    """
    training = load_config(workdir).training
    progress = Checkpoints(workdir / "checkpoints", is_trained=True).progress()
    if not progress.is_over(training):
        raise InputError(
            f"{workdir}: was trained for {progress.epochs} of {training.epochs} epochs; the same "
            "training command finishes it"
        )
    return progress.epochs


def check_same_data(workdir: pathlib.Path, dataset: Dataset) -> None:
    """Raise InputError if the run in `workdir` was trained on other data."""
    path = workdir / "dataset.json"
    _check_exists(path)
    if _read(path, _OF_DATA).get("digest") != dataset.digest:
        raise InputError(
            f"{workdir}: the run was trained on other data than data set {dataset.name} "
            "is now; restore the data, or train again in another folder"
        )


def _read(path: pathlib.Path, fields: Mapping[str, type]) -> dict[str, Any]:
    """Read a file that every start of a run writes."""
    return read_json_object(path, fields, "delete it: the same training command writes it again")


def _check_exists(path: pathlib.Path, kind: str = "") -> None:
    """Raise InputError if a file of a run is not there, with what helps."""
    if path.is_file():
        return
    if (path.parent / "checkpoints").is_dir():
        raise InputError(f"{path}: not found; the same training command writes it again")
    raise InputError(f"{path}: not found; give the --workdir of a {kind}training run")


def open_run(
    workdir: pathlib.Path, config: Config, dataset: Dataset, placement: Placement
) -> tuple[Checkpoints, OnEpoch]:
    """Start or resume a run in a folder.

    Raises:
      InputError: the folder holds a run of another configuration, of more epochs or on other
        data, holds damaged files, or cannot be made.
    """
    if (workdir / "config.json").exists():
        check_same_run(workdir, config, load_config(workdir))
    if (workdir / "dataset.json").exists():
        check_same_data(workdir, dataset)
    path = workdir / "metrics.jsonl"
    identity = Identity.of(config, dataset.digest)
    store = Checkpoints(workdir / "checkpoints", placement.used_rows, identity)
    # Refused now if damaged, not after an epoch; checkpoints of another run too.
    progress, log = store.progress(), read_json_lines(path)
    trained = max([progress.epochs, *(record["epoch"] for record in log)])
    if config.training.epochs < trained:
        raise InputError(
            f"--workdir={workdir} holds a run of {trained} epochs; use another folder, or "
            f"config.training.epochs={trained} or more, not {config.training.epochs}"
        )
    processes.wait_for_all("working directory read")
    if not processes.is_first():
        return store, ignore_epoch
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "dataset.json", {"name": dataset.name, "digest": dataset.digest})
        write_json(workdir / "config.json", configs.as_dict(config))
        _check_log(path, log, progress, store.is_empty)
        store.tidy()
        if prepared.restore(workdir / _DATA) is None:
            prepared.save(workdir / _DATA, to_arrays(dataset), {"digest": dataset.digest})
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be written to ({error.strerror})") from None
    return store, lambda record: append_json_line(path, record)


def _check_log(
    path: pathlib.Path, records: Sequence[Mapping[str, Any]], progress: Progress, is_lost: bool
) -> None:
    """Warn of epochs that have no line in `metrics.jsonl`, or several, of which the last stays.

    Also of lines that are not as they were written. Those of epochs that are trained again go, and
    so does one that was not finished.

    Args:
      records: the lines that are there.
      progress: of the run that goes on.
      is_lost: whether there is no checkpoint of any.
    """
    found = Counter(record["epoch"] for record in records)
    lost = [epoch for epoch in range(1, progress.epochs + 1) if epoch not in found]
    kept = {record["epoch"]: record for record in records if record["epoch"] <= progress.epochs}
    doubled = [epoch for epoch, count in sorted(found.items()) if count > 1]
    if lost:
        logging.warning(
            "%s: has no line for %s; the run goes on without", path, _epochs_named(lost)
        )
    if doubled:
        logging.warning(
            "%s: had several lines for %s; the last is kept", path, _epochs_named(doubled)
        )
    if not (lost or doubled) and checksum_of(kept.values()) != progress.log_checksum:
        logging.warning("%s: is not as it was written; the run goes on from its checkpoint", path)
    if records and is_lost:
        logging.warning(
            "%s: the checkpoints are gone; nothing else is left: training starts again", path.parent
        )
    if path.exists():
        write_json_lines(path, list(kept.values()))


def _epochs_named(epochs: list[int]) -> str:
    """Name epochs, those that follow each other together: `epochs 1 to 3, 5`."""
    named = set(epochs)
    starts = [epoch for epoch in epochs if epoch - 1 not in named]
    stops = [epoch for epoch in epochs if epoch + 1 not in named]
    spans = zip(starts, stops, strict=True)
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in spans]
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {', '.join(texts)}"

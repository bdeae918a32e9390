"""What a line says is lost of a run or foreign to it, and remedies that lines name, tried."""

import contextlib
import dataclasses
import errno
import pathlib
import resource
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stopped_runs import EPOCHS, all_of, flipped, goes_on, gone, newest, truncated
from support.planted import planted_of
from support.small_runs import ITEMS, USERS, assert_same, config_of, train

import hlr_jax
from hlr_jax import files
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment, manifests
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.workdir import check_finished, load_config

# --- whose checkpoints they are ------------------------------------------------------------------


def test_checkpoints_know_their_configuration_and_data(run, whole):
    for name in ("config.json", "dataset.json"):
        (run / name).unlink()
    with pytest.raises(InputError, match=r"holds a run with config\.seed=1, not 5; use another"):
        train(config_of(epochs=EPOCHS, seed=5), run)
    other = planted_of(USERS, ITEMS, (5, 7, 9))
    with pytest.raises(InputError, match="holds a run on other data; restore the data, or train"):
        experiment.train(config_of(epochs=EPOCHS), run, other, show_progress=False)
    assert not (run / "config.json").exists()
    assert_same(goes_on(run), whole)
    assert load_config(run).training.epochs == EPOCHS


def test_fewer_epochs_than_a_state_has_are_refused_without_a_log(run):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match="a run of 3 epochs"):
        train(config_of(epochs=2), run)


def rewritten(folder: pathlib.Path, **changes: Any) -> None:
    """Change a manifest as nobody but a program would, with its checksum."""
    manifests.write(folder, dataclasses.replace(manifests.read(folder), **changes))


def test_another_version_is_named(run):
    rewritten(newest(run, "latest"), version=2)
    with pytest.raises(InputError, match="is of version 2, this library reads version 1") as caught:
        goes_on(run)
    assert str(newest(run, "latest")) in str(caught.value)


def test_a_folder_of_an_earlier_version_is_named(run):
    for path in run.rglob("manifest.json"):
        path.unlink()
        (path.parent / "progress").mkdir()
    with pytest.raises(InputError, match=r"earlier version.*train in another folder"):
        goes_on(run)


def test_an_edited_number_is_damage(run, warnings):
    path = newest(run, "latest") / "manifest.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 2'))
    assert Checkpoints(run / "checkpoints").progress().epochs == 2
    assert "manifest.json has changed" in warnings[0]


def test_a_step_of_another_epoch_is_damage(run):
    folder = newest(run, "latest")
    rewritten(folder, progress=manifests.read(folder).progress._replace(epochs=1))
    with pytest.raises(InputError, match="is of step 36, which is not in epoch 2 of 12 steps"):
        goes_on(run)


# --- remedies, by what the message says of them --------------------------------------------------


def other_radius(workdir: pathlib.Path) -> None:
    config = files.read_json_object(workdir / "config.json")
    config["geometry"]["radius"] = 2.0
    files.write_json(workdir / "config.json", config)


# What is done to a run, what reading it then says, and which file that says to delete first.
REMEDIES: dict[str, tuple[Callable[[pathlib.Path], object], str, str]] = {
    "damaged": (
        lambda run: [flipped(path) for path in all_of(run, "best")],
        "nothing else is left: the same training command trains again",
        "",
    ),
    "no checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "nothing else is left: the same training command trains again",
        "",
    ),
    "no configuration": (
        lambda run: gone(run / "config.json"),
        "config.json: not found; the same training command writes it again",
        "",
    ),
    "no name of the data": (
        lambda run: gone(run / "dataset.json"),
        "dataset.json: not found; the same training command writes it again",
        "",
    ),
    "damaged configuration": (
        lambda run: truncated(run / "config.json"),
        "delete it: the same training command writes it again",
        "config.json",
    ),
    "damaged name of the data": (
        lambda run: truncated(run / "dataset.json"),
        "delete it: the same training command writes it again",
        "dataset.json",
    ),
    "another configuration": (
        other_radius,
        "trained with config.geometry.radius=1.0, not 2.0; correct that, or delete the file: the "
        "same training command writes it again",
        "config.json",
    ),
}


@pytest.mark.parametrize("harm", REMEDIES)
def test_the_remedy_that_reading_names_helps(harm, run, whole):
    do, message, deleted = REMEDIES[harm]
    do(run)
    with pytest.raises(InputError) as caught:
        hlr_jax.load(run)
    assert message in str(caught.value)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)
    if deleted:
        (run / deleted).unlink()
    goes_on(run)
    assert_same(hlr_jax.load(run).params, whole)


def test_data_that_are_damaged_are_written_again(run, whole):
    truncated(run / "data" / "train_items.npy")
    goes_on(run)
    assert_same(hlr_jax.load(run).params, whole)


@pytest.mark.parametrize("deleted", ["latest", "best"])
def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(
    deleted, run, whole, monkeypatch
):
    """A disk may be away for a moment; who deletes the checkpoint goes on from the one before."""
    folder = newest(run, deleted)
    original = manifests.checksum

    def refused(path: pathlib.Path) -> int:
        if path.is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    with monkeypatch.context() as patched:
        patched.setattr(manifests, "checksum", refused)
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)") as caught:
            goes_on(run)
    assert f"or delete {folder} to use the checkpoint before it" in str(caught.value)
    shutil.rmtree(folder)
    assert_same(goes_on(run), whole)


def test_a_manifest_that_may_not_be_read_is_not_taken_for_damaged(run, whole, monkeypatch):
    original = pathlib.Path.read_bytes

    def away(path: pathlib.Path) -> bytes:
        if path.name == "manifest.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return original(path)

    kept = all_of(run, "latest")
    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "read_bytes", away)
        with pytest.raises(InputError, match=r"manifest.json: cannot be read \(Input/output error"):
            goes_on(run)
    assert all_of(run, "latest") == kept
    assert_same(goes_on(run), whole)


def test_an_old_checkpoint_that_cannot_be_deleted_is_in_nobodys_way(run, whole, monkeypatch):
    """A network file system keeps what a reader has open."""

    def kept(path: pathlib.Path, *arguments: Any, **named: Any) -> None:
        if not named.get("ignore_errors"):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", kept)
        assert_same(goes_on(run), whole)
    assert_same(hlr_jax.load(run).params, whole)


# --- the log -------------------------------------------------------------------------------------


def test_a_changed_number_of_the_log_is_noticed(run, whole, warnings):
    path = run / "metrics.jsonl"
    text = path.read_text()
    at = text.index("train_loss") + len('train_loss": 0.12')
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    assert_same(goes_on(run), whole)
    assert warnings == [f"{path}: is not as it was written; the run goes on from its checkpoint"]


@pytest.mark.parametrize(
    ("epochs", "message", "left"),
    [
        ([], "has no line for epochs 1 to 3; the run goes on without", [4]),
        ([1, 3], "has no line for epoch 2; the run goes on without", [1, 3, 4]),
        ([2], "has no line for epochs 1, 3; the run goes on without", [2, 4]),
        (
            [1, 2, 2, 3, 3],
            "had several lines for epochs 2 to 3; the last is kept",
            [1, 2, 3, 4],
        ),
    ],
)
def test_lost_and_doubled_lines_of_the_log_are_named(epochs, message, left, run, whole, warnings):
    path = run / "metrics.jsonl"
    records = {record["epoch"]: record for record in files.read_json_lines(path)}
    path.unlink()
    if epochs:
        files.write_json_lines(path, [records[epoch] for epoch in epochs])
    assert_same(goes_on(run), whole)
    assert warnings == [f"{path}: {message}"]
    found = files.read_json_lines(path)
    assert [record["epoch"] for record in found] == left
    assert found[:-1] == [records[epoch] for epoch in left[:-1]]


def test_a_damaged_log_that_is_deleted_as_the_message_says_is_in_nobodys_way(run, whole):
    path = run / "metrics.jsonl"
    path.write_text('{"epoch": "1"}\n')
    with pytest.raises(
        InputError, match="epoch is '1', not a whole number; repair or delete the file"
    ):
        goes_on(run)
    path.unlink()
    assert_same(goes_on(run), whole)
    assert check_finished(run) == EPOCHS


# --- a disk that refuses -------------------------------------------------------------------------


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Checkpoints, "save_best"), (Checkpoints, "save"), (manifests, "write")],
    ids=["best", "state", "manifest"],
)
def test_a_disk_that_refuses_is_named_in_a_line_and_nothing_is_lost(
    owner, name, run, whole, monkeypatch, capfd
):
    before, write = hlr_jax.load(run).params, getattr(owner, name)

    def refused(*arguments: Any) -> Any:
        with files_of_at_most(400):
            return write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, refused)
        with pytest.raises(InputError) as caught:
            goes_on(run)
    assert str(caught.value).startswith(f"{run / 'checkpoints'}/")
    assert "a checkpoint cannot be saved (File too large); those before" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    assert_same(hlr_jax.load(run).params, before)
    assert_same(goes_on(run), whole)
    assert [path for path in run.rglob("*") if "tmp" in path.name] == []

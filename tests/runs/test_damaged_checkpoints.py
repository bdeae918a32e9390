"""Whatever happens to the checkpoints of a run, it ends as if nothing had."""

import contextlib
import gc
import itertools
import pathlib
import random
import shutil
from collections.abc import Callable

import jax
import pytest
from stopped_runs import all_of, files_of, flipped, goes_on, gone, newest, truncated, zeroed
from support.small_runs import Run, assert_same, config_of, read_log, train

import hlr_jax
from hlr_jax.runs import experiment, manifests
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training.store import Progress

# --- what is kept --------------------------------------------------------------------------------


def test_two_states_and_the_best_that_they_count_on_are_kept(stopped):
    latest, best = (
        {
            int(path.name): manifests.read(path)
            for path in (stopped / "checkpoints" / kind).iterdir()
        }
        for kind in ("latest", "best")
    )
    assert sorted(found.progress.epochs for found in latest.values()) == [2, 3]
    assert {found.best for found in latest.values()} == best.keys()
    for found in latest.values():
        assert best[found.best].checksum == found.best_checksum
        assert best[found.best].progress.best_epoch == found.progress.best_epoch


def test_a_state_with_another_best_is_kept_besides(run):
    """Without it, nothing would be left of a run whose newest best is damaged."""
    store = Checkpoints(run / "checkpoints")
    like = Run.of(config_of()).state()
    state, progress = store.restore(like)
    for _ in range(4):
        store.save(state, progress)
    kept = [manifests.read(path) for path in (run / "checkpoints" / "latest").iterdir()]
    assert sorted(found.progress.best_epoch for found in kept) == [2, 3, 3]


# --- damage --------------------------------------------------------------------------------------


def check_what_is_used(workdir: pathlib.Path, harmed: pathlib.Path, told: list[str]) -> None:
    """Check that the state before the newest is used where that, or its best, is harmed."""
    is_newest = harmed.is_relative_to(newest(workdir, harmed.relative_to(workdir).parts[1]))
    assert Checkpoints(workdir / "checkpoints").progress().epochs == (2 if is_newest else 3), harmed
    assert len(told) == is_newest, harmed
    if is_newest:
        folder = pathlib.Path(*harmed.parts[: len(workdir.parts) + 3])
        assert told[0].startswith(f"{folder}: the checkpoint ")
        assert told[0].endswith("; going on from epoch 2")
        assert "\n" not in told[0]


@pytest.mark.parametrize("harm", [truncated, zeroed, gone])
def test_a_harmed_file_of_a_checkpoint_is_noticed_whichever_it_is(harm, run, warnings):
    for path in files_of(run / "checkpoints"):
        content = path.read_bytes()
        if harm is not gone and not content:
            continue
        harm(path)
        check_what_is_used(run, path, warnings)
        path.write_bytes(content)
        warnings.clear()
    check_nothing_is_told_of(run, warnings)


def check_nothing_is_told_of(workdir: pathlib.Path, told: list[str]) -> None:
    assert Checkpoints(workdir / "checkpoints").progress().epochs == 3
    assert told == []


def test_a_flipped_bit_is_noticed_wherever_it_is(run, warnings):
    draw = random.Random(0)
    paths = [path for path in files_of(run / "checkpoints") if path.stat().st_size]
    for _ in range(40):
        path = draw.choice(paths)
        # Bit 5 is that of capitals, which are the same in the exponent of a JSON number.
        bit = draw.choice([0, 1, 2, 3, 4, 6, 7])
        place = draw.randrange(path.stat().st_size)
        flipped(path, place, bit)
        check_what_is_used(run, path, warnings)
        flipped(path, place, bit)
        warnings.clear()
    check_nothing_is_told_of(run, warnings)


def in_place_of_the_newest(workdir: pathlib.Path) -> None:
    """Put a whole checkpoint, but an older one, where the newest best is."""
    place = newest(workdir, "best")
    older = place.with_name(str(int(place.name) - 1))
    shutil.rmtree(place)
    shutil.copytree(older, place)


# What is done to a run, how many warnings there are, and whether a state is left.
HARMS: dict[str, tuple[Callable[[pathlib.Path], object], int, bool]] = {
    "a bit of the newest state": (lambda run: flipped(files_of(newest(run, "latest"))[0]), 1, True),
    "a bit of the newest best": (lambda run: flipped(files_of(newest(run, "best"))[0]), 1, True),
    "no newest best": (lambda run: shutil.rmtree(newest(run, "best")), 1, True),
    "no newest state": (lambda run: shutil.rmtree(newest(run, "latest")), 0, True),
    "an older best for the newer": (lambda run: in_place_of_the_newest(run), 1, True),
    "every state": (lambda run: [flipped(path) for path in all_of(run, "latest")], 2, False),
    "every best": (lambda run: [flipped(path) for path in all_of(run, "best")], 2, False),
    "no best at all": (lambda run: shutil.rmtree(run / "checkpoints" / "best"), 2, False),
    "no checkpoints at all": (lambda run: shutil.rmtree(run / "checkpoints"), 1, False),
    "every manifest": (lambda run: [gone(path) for path in run.rglob("manifest.json")], 2, False),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_run_with_damaged_checkpoints_ends_as_if_they_were_whole(harm, run, whole, warnings):
    do, count, is_left = HARMS[harm]
    do(run)
    assert_same(goes_on(run), whole)
    used = "going on from epoch 2" if is_left else "nothing else is left: training starts again"
    assert len([line for line in warnings if line.endswith(f"; {used}")]) == len(warnings) == count
    assert [record["epoch"] for record in read_log(run)] == [1, 2, 3, 4]
    # Nothing damaged is left, and nothing is said any more.
    warnings.clear()
    assert_same(goes_on(run), whole)
    assert_same(hlr_jax.load(run).params, whole)
    assert warnings == []


# --- stopped between two writes ------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("write", range(1, 5))
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_a_run_killed_at_any_manifest_ends_as_if_it_was_not(
    write, is_before, tmp_path, whole, monkeypatch
):
    """The first best, the first state, the second best, ...: each in turn."""
    original, numbers = manifests.write, itertools.count(1)

    def kill(folder: pathlib.Path, manifest: manifests.Manifest) -> manifests.Manifest:
        is_time = next(numbers) == write
        if is_time and is_before:
            raise Killed
        complete = original(folder, manifest)
        if is_time:
            raise Killed
        return complete

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "while_training", contextlib.nullcontext)
        patched.setattr(manifests, "write", kill)
        with pytest.raises(Killed):
            goes_on(tmp_path)
    assert_same(goes_on(tmp_path), whole)
    assert [record["epoch"] for record in read_log(tmp_path)] == [1, 2, 3, 4]


def test_a_best_that_no_state_names_is_not_used_and_goes(run, whole):
    expected = hlr_jax.load(run).params
    store = Checkpoints(run / "checkpoints")
    state, progress = store.restore(Run.of(config_of()).state())
    ahead = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    store.save_best(ahead, progress._replace(epochs=4, best_epoch=4))
    unnamed = manifests.read(newest(run, "best")).checksum
    assert_same(hlr_jax.load(run).params, expected)
    assert_same(train(config_of(epochs=3), run), expected)
    assert_same(goes_on(run), whole)
    folders = (run / "checkpoints" / "best").iterdir()
    assert unnamed not in [manifests.read(folder).checksum for folder in folders]


def test_saving_leaves_no_metrics_behind(tmp_path):
    """TensorStore never frees what it returns of them, and Orbax asks three times a save."""
    store, state = Checkpoints(tmp_path), Run.of(config_of()).state()

    def count() -> int:
        found = [x for x in gc.get_objects() if type(x) is dict]
        return sum(str(x.get("name", "")).startswith("/tensorstore/") for x in found)

    before = count()
    store.save(state, Progress())
    assert count() == before

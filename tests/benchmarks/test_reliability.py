"""A short form of `make torture`, and whether it would notice what it looks for."""

import json
import random

import pytest

from benchmarks import output
from benchmarks.accuracy import pages
from benchmarks.reliability import damage, kills, page, programs, soak, trials
from benchmarks.reliability.faults import Fault
from benchmarks.reliability.fork_server import Ended
from benchmarks.reliability.trials import CHANGED, CRASHED, SAID, SAME


def ended(code: int | None = 0, err: str = "") -> Ended:
    return Ended(code, "", err, (), {}, 1.0)


@pytest.mark.parametrize(
    ("end", "found", "kind"),
    [
        (ended(), 1, SAME),
        (ended(err="warning: skipped\n"), 1, SAME),
        (ended(), 2, CHANGED),
        (ended(err="warning: skipped\n"), 2, SAID),
        (ended(2, "epoch 1/3\nerror: x: is damaged; delete it\n"), None, SAID),
        (ended(2, "error: x\nerror: y\n"), None, CRASHED),
        (ended(2, "Traceback (most recent call last):\nerror: x\n"), None, CRASHED),
        (ended(2, "\n".join(["noise"] * 2000) + "\nerror: x\n"), None, CRASHED),
        (ended(2), None, CRASHED),
        (ended(0, "thread panicked at src/x.rs\n"), 1, CRASHED),
        (ended(1, "error: diverged\n"), None, CRASHED),
        (ended(-9), None, CRASHED),
        (ended(None), None, CRASHED),
    ],
)
def test_what_counts_as_what(end, found, kind):
    assert trials.judged(end, 1, lambda: found).kind == kind


def test_differences_are_found():
    one = {"tables": {"users": "a"}, "log": [{"loss": 0.5}, {"loss": 0.25}]}
    assert trials.first_difference(one, json.loads(json.dumps(one))) == ""
    other = {"tables": {"users": "a"}, "log": [{"loss": 0.5}, {"loss": 0.26}]}
    assert trials.first_difference(one, other) == "/log/1/loss: 0.25 became 0.26"
    assert "2 records became 1" in trials.first_difference(one, one | {"log": [{"loss": 0.5}]})
    assert "became ['tables']" in trials.first_difference(one, {"tables": {}})


@pytest.mark.parametrize("name", damage.DAMAGES)
def test_damages_change_something(name):
    content = b'{"epoch": 1}\n{"epoch": 2}\n'
    for seed in range(20):
        assert damage.DAMAGES[name](content, random.Random(seed)) != content


@pytest.fixture(scope="module")
def server(tmp_path_factory, pytestconfig):
    found = programs.Programs(pytestconfig.cache.mkdir("torture"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def case(server, tmp_path_factory):
    """A run of two epochs, and all of its write points."""
    scratch = tmp_path_factory.mktemp("torture")
    programs.write_data(scratch / "data.csv")
    flags = programs.config_flags(scratch / "data.csv", epochs=2)
    return kills.Case("short", flags, scratch).prepare(server, times=1)


def test_killed_at_its_write_points_a_run_ends_as_if_it_were_not(server, case):
    rng = random.Random(0)
    # A run that writes slowly saves less often: only what comes first is met by every run.
    begun = next(n for n, point in enumerate(case.points, 1) if kills.is_in_save(point))
    saved = next(n for n, point in enumerate(case.points, 1) if point.endswith("/manifest.json"))
    for number, is_saved in (
        (rng.randrange(1, begun), False),
        (rng.randrange(begun, begun + 20), False),
        (saved + rng.randrange(5, 15), True),
    ):
        folder = case.new_folder("killed")
        (killed,) = server.run(*case.programs(folder, Fault("kill", str(folder), number)))
        assert killed.code == -9
        assert len(killed.points) == 1
        assert any(folder.glob("checkpoints/*/*/manifest.json")) == is_saved
        outcome = case.finish(server, folder)
        assert outcome.kind == SAME, (killed.points, outcome)


def test_a_damaged_folder_gives_the_same_or_a_line(server, case):
    folders = damage.Folders(case, server)
    found = damage.trials(folders, random.Random(1))
    for trial in found[:3]:
        outcome = trial.run(server)
        assert outcome.kind in (SAME, SAID), (trial.label, outcome)


RECORDED = output.COMMITTED / "reliability" / "torture.json"


@pytest.mark.skipif(not RECORDED.exists(), reason="nothing is recorded: make torture")
def test_the_page_shows_what_was_recorded():
    results = json.loads(RECORDED.read_text())
    inputs = RECORDED.with_name("inputs.json")
    if inputs.exists():
        results["inputs"] = json.loads(inputs.read_text())
    text = (output.ROOT / "docs" / "reliability.md").read_text()
    assert pages.render(text, {"torture": page.table(results)}) == text
    assert all(row["changed"] == row["crashed"] == 0 for row in results["sections"])


def test_a_table_counts_what_came_of_the_faults():
    counts = {"same": 1000, "said": 20, "missed": 5, "changed": 3, "crashed": 1}
    machine = {"cores": 2, "cpu": "a processor"}
    versions = {"python": "3.11", "jax": "0.10"}
    reader = {"tried": 7, "read": 4, "refused": 3, "crashed": 0}
    text = page.table(
        {
            "sections": [{"name": "killed", **counts}],
            "inputs": {"readers": {"CSV": reader}, "seconds": 1},
            "soak": {"epochs": 2000, "fifths": soak.fifths([dict.fromkeys(soak.WATCHED, 1.0)])},
            "minutes": 14.6,
            "machine": machine,
            "versions": versions,
        }
    )
    assert "| killed | 1,024 | 1,000 | 20 | 3 | 1 |" in text
    assert "| **all** | **1,024** | **1,000** | **20** | **3** | **1** |" in text
    assert "| CSV | 7 | 4 | 3 | 0 |" in text
    assert "| 2,000 epochs with a folder | first fifth | last fifth |" in text
    assert "15 minutes on 2 cores of a processor" in text


def test_fifths_are_medians_of_the_ends():
    looks = [dict.fromkeys(soak.WATCHED, float(place)) for place in range(10)]
    assert soak.fifths(looks)["handles"] == {"first": 0.5, "last": 8.5}

"""Where benchmarks write: never over the committed results unless that is asked for."""

import json

import pytest
from absl import app, flags
from absl.testing import flagsaver

from benchmarks import output, quick

flags.DEFINE_integer("size_of_a_test", 100, "A flag to shrink.")


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def test_results_go_to_a_scratch_folder_unless_they_are_recorded(tmp_path):
    assert output.folder() == output.ROOT / "build" / "bench"
    with flagsaver.flagsaver(record=True):
        assert output.folder() == output.ROOT / "benchmarks" / "results"
    with flagsaver.flagsaver(out=str(tmp_path / "a")):
        path = output.write("b/c.json", {"x": 1})
        assert path == tmp_path / "a" / "b" / "c.json"
        assert json.loads(path.read_text()) == {"x": 1}


def test_flags_that_contradict_each_other_are_refused():
    with flagsaver.flagsaver(record=True, out="x"), pytest.raises(app.UsageError, match="--out"):
        output.check(["program"])
    with flagsaver.flagsaver(record=True, quick=True), pytest.raises(app.UsageError, match="quick"):
        quick.shrink()
    with pytest.raises(app.UsageError, match="unknown argument 'x'"):
        output.check(["program", "x"])


def test_a_quick_run_shrinks_what_is_not_given():
    quick.shrink(size_of_a_test=3)
    assert flags.FLAGS.size_of_a_test == 100
    with flagsaver.flagsaver(quick=True):
        quick.shrink(size_of_a_test=3)
        assert flags.FLAGS.size_of_a_test == 3
    with flagsaver.flagsaver(quick=True):
        flags.FLAGS["size_of_a_test"].present = 1
        quick.shrink(size_of_a_test=3)
        assert flags.FLAGS.size_of_a_test == 100

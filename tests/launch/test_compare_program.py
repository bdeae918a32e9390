"""`launch/compare.py`, run as people run it."""

import polars as pl
import pytest
from support.launching import assert_refused, read


@pytest.fixture(scope="module")
def popular(launch, config_file, tmp_path_factory):
    """A baseline that is fitted on validation too, as the run is."""
    workdir = tmp_path_factory.mktemp("baselines") / "popular"
    flags = ["--name=most_popular", f"--config={config_file}", f"--workdir={workdir}", "--refit"]
    done = launch("baseline", *flags)
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_run_is_compared_with_a_baseline(launch, trained, popular, tmp_path):
    flags = [f"--runs={trained}", f"--baselines={popular}", "--metrics=ndcg@10,recall@5"]
    figure = tmp_path / "found.png"
    done = launch("compare", *flags, f"--output={tmp_path / 'out'}", f"--figure={figure}")
    assert done.returncode == 0, done.stderr
    stored = read(tmp_path / "out" / "compare.json")
    assert [entry["name"] for entry in stored["entries"]] == ["small", "popular"]
    for entry, folder in zip(stored["entries"], (trained, popular), strict=True):
        measured = read(folder / "results.json")["test"]["ndcg@10"]
        assert entry["means"]["ndcg@10"] == pytest.approx(measured, abs=1e-6)
        shown = f"{entry['means']['ndcg@10']:.4f}".removeprefix("0")
        assert any(
            line.split()[0] == entry["name"] and shown in line
            for line in done.stdout.splitlines()
            if line
        )
    assert done.stdout.splitlines()[-1] == stored["verdicts"][0]
    assert stored["verdicts"][0].startswith("popular: NDCG@10 ")
    assert pl.read_csv(tmp_path / "out" / "compare.csv").height == 4
    assert figure.stat().st_size > 1000


def test_a_comparison_on_validation_into_a_file(launch, trained, popular, tmp_path):
    flags = [f"--runs={trained}", f"--baselines={popular}", "--split=valid"]
    done = launch("compare", *flags, f"--output={tmp_path}/found.json", f"--against={popular}")
    assert done.returncode == 0, done.stderr
    stored = read(tmp_path / "found.json")
    assert stored["reference"] == "popular"
    measured = read(trained / "results.json")["valid"]["ndcg@10"]
    assert stored["entries"][0]["means"]["ndcg@10"] == pytest.approx(measured, abs=1e-6)
    assert (tmp_path / "found.csv").exists()


def test_bad_comparisons_are_refused_in_one_line(launch, trained, popular, tmp_path):
    runs, baselines = f"--runs={trained}", f"--baselines={popular}"
    assert_refused(launch("compare", runs), "there is nothing to compare")
    assert_refused(launch("compare", runs, f"--baselines={trained}"), "is given twice")
    assert_refused(launch("compare", runs, f"--baselines={tmp_path}"), "hlr-jax baseline")
    assert_refused(
        launch("compare", runs, baselines, "--figure=found.jpg"),
        "--figure=found.jpg: end it in .png, .pdf, .svg",
    )
    for output, fault in (
        ("found.txt", "end it in .json"),
        ("nowhere/found.json", "there is no folder nowhere"),
        ("nowhere/found", "there is no folder nowhere"),
    ):
        assert_refused(launch("compare", runs, baselines, f"--output={output}"), fault)
    assert_refused(launch("compare", runs, baselines, "--metrics=ndcg"), "--metrics='ndcg'")
    assert_refused(launch("compare", runs, baselines, "--split=train"), "--split")
    assert_refused(launch("compare", baselines), "--runs")

"""The prepared run on a lent GPU, tiny and in this process: what it reports, how it goes on."""

import dataclasses
import importlib.util
import json

import pytest
from absl import app

from benchmarks.speed import gpu, sections

TINY = dataclasses.replace(sections.TINY, is_local=True)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch, for which is `.[bench]`"
)


@pytest.fixture(autouse=True)
def known_sections(monkeypatch):
    monkeypatch.setattr(sections, "SECTIONS", dict(sections.register_all()))


def measured(tmp_path, *names, budget=600.0):
    path = tmp_path / "gpu.json"
    gpu.Run(TINY, budget, path).measure(names)
    return json.loads(path.read_text())


def values(results):
    return {figure["name"]: figure["value"] for figure in results["figures"]}


def test_figures_have_a_form(tmp_path):
    names = "ceilings", "CML's step, B 1,000"
    results = measured(tmp_path, *names)
    assert results["card"] == "cpu"
    assert {"python", "jax", "torch"} <= set(results["versions"])
    assert [(row["name"], row["outcome"]) for row in results["sections"]] == [
        (name, "done") for name in names
    ]
    for figure in results["figures"]:
        assert set(figure) == {"name", "value", "unit", "asked", "less_is_better"}
        assert figure["value"] > 0
    step = next(x for x in results["figures"] if x["name"] == "CML, B 64: step")
    assert (step["unit"], step["asked"], step["less_is_better"]) == ("us", 40.0, True)
    assert values(results)["CML, B 64: share of roofline"] > 0


def test_the_full_catalogue_is_measured_or_refused_with_a_message(tmp_path):
    results = measured(tmp_path, "full catalogue")
    epoch, *others = results["figures"]
    assert epoch["asked"] == 0.3
    if epoch["value"] is None:
        assert epoch["note"].startswith("refused: config.")
    else:
        assert others[0]["unit"] == "GiB"
        assert others[0]["asked"] == 4.0


def test_all_users_are_ranked_for(tmp_path):
    found = values(measured(tmp_path, "ranking of ML-20M's shapes"))
    assert found["HLR ranks for 300 users, 120 items"] > 0


@needs_torch
@pytest.mark.parametrize("what", ["CML's training", "HLR's ranking"])
def test_pytorch_takes_part_and_agrees(tmp_path, what):
    results = measured(tmp_path, f"{what} against PyTorch")
    assert results["sections"][0]["outcome"] == "done"
    found = values(results)
    assert found[f"{what}, PyTorch's best / ours"] > 0
    assert sum(name.endswith("compilation") for name in found) == 1


def test_a_section_that_raises_does_not_keep_the_next_from_running(tmp_path):
    def fails(reporter):
        reporter.figure("before", 1.0, "s")
        raise RuntimeError("broken")

    sections.section("fails", weight=1)(fails)
    sections.section("works", weight=1)(lambda reporter: reporter.figure("after", 2.0, "x"))
    results = measured(tmp_path, "fails", "works")
    assert [row["outcome"] for row in results["sections"]] == [
        "failed: RuntimeError: broken",
        "done",
    ]
    assert values(results) == {"before": 1.0, "after": 2.0}


def test_no_section_starts_when_the_time_is_spent(tmp_path):
    results = measured(tmp_path, "ceilings", budget=0.5)
    assert results["sections"][0]["outcome"] == "left out: no time"
    assert results["figures"] == []


def test_sections_are_chosen_by_the_start_of_their_names():
    assert gpu.chosen(["ceil", "CML's step"]) == [
        "ceilings",
        "CML's step, B 1,000",
        "CML's step, B 65,536",
    ]
    assert len(gpu.chosen([])) == len(sections.SECTIONS)
    with pytest.raises(app.UsageError, match="'x' starts none of ceilings"):
        gpu.chosen(["x"])


def test_what_is_missing_is_named(monkeypatch):
    assert not gpu.missing()
    monkeypatch.setitem(gpu.NEEDED, "no_such_module.part", "its-package")
    assert gpu.missing() == ["its-package"]
    assert gpu.versions()["jax"]

"""The run of measurements for a GPU, tiny and in this process: what it reports, how it goes on."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from absl import app

from benchmarks.speed import gpu, gpu_kernels, gpu_programs, sections
from hlr_jax.kernels import relation_change, relation_change_gpu, sizes
from hlr_jax.sampling.batches import draw_batch

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


def test_the_best_way_through_the_full_catalogue_is_compared_with_what_is_asked(tmp_path):
    ways = "pallas, default", "xla, default"
    names = [f"full catalogue, {how}" for how in (*ways, "the best")]
    results = measured(tmp_path, *names)
    refused, *others, best, peak = results["figures"]
    assert refused["value"] is None
    assert refused["note"].startswith("refused: config.model.implementation='pallas'")
    assert [figure["asked"] for figure in others] == [None, None]
    for figure, unit, asked, value in zip(
        (best, peak), ("s", "GiB"), (0.3, 4.0), (x["value"] for x in others), strict=True
    ):
        assert (figure["unit"], figure["asked"], figure["value"]) == (unit, asked, value)
        assert value > 0
        assert figure["note"] == "by xla, default"


def test_without_a_way_through_the_full_catalogue_there_is_no_best(tmp_path):
    best, peak = measured(tmp_path, "full catalogue, the best")["figures"]
    assert best["value"] is peak["value"] is None
    assert best["note"] == "none was measured"


def test_the_flash_kernel_agrees_where_pallas_imitates_a_gpu(tmp_path):
    results = measured(tmp_path, "flash kernel: agreement")
    assert results["sections"][0]["outcome"] == "done"
    assert len(results["figures"]) == 4
    for figure in results["figures"]:
        assert figure["less_is_better"]
        assert figure["value"] < figure["asked"] == gpu_kernels.TOLERANCE


@pytest.mark.parametrize("broken", [2.0, np.nan])
def test_a_flash_kernel_that_is_off_is_found(tmp_path, monkeypatch, broken):
    def off(pairs, beta, interpret):
        return relation_change(pairs, beta, "xla") * broken

    monkeypatch.setattr(relation_change_gpu, "relation_change_on_gpu", off)
    results = measured(tmp_path, "flash kernel: agreement")
    assert results["sections"][0]["outcome"].startswith("failed: RuntimeError: flash kernel, HLR")
    assert len(results["figures"]) == 4


def test_the_flash_kernel_is_timed(tmp_path):
    results = measured(tmp_path, "ceilings", "flash kernel: time")
    assert results["sections"][1]["outcome"] == "done"
    found = values(results)
    for how in ("pallas, default", "pallas, float32", "pallas, bfloat16", "xla, default"):
        assert found[f"flash kernel, {how}: largest error"] < gpu_kernels.TOLERANCE
        for what in ("forward", "forward and gradient"):
            assert found[f"flash kernel, {how}: {what}"] > 0
            assert found[f"flash kernel, {how}: {what}, share of products"] > 0


@pytest.mark.parametrize(
    ("name", "number", "unit"),
    [
        ("scatter forms", 6, "us"),
        ("command buffers", 4, "us"),
        ("precision", 3, "us"),
        ("determinism", 8, "us"),
    ],
)
def test_forms_of_a_step_are_compared(tmp_path, name, number, unit):
    results = measured(tmp_path, name)
    assert results["sections"][0]["outcome"] == "done"
    assert [figure["unit"] for figure in results["figures"]] == number * [unit]
    assert len(values(results)) == number
    assert min(values(results).values()) > 0


def test_sums_that_disagree_are_found(tmp_path, monkeypatch):
    forms = {"all but the last": (lambda sums, ids, rows: sums.at[ids[:-1]].add(rows[:-1]), 1)}
    monkeypatch.setattr(gpu_kernels, "_FORMS", forms)
    results = measured(tmp_path, "scatter forms")
    outcome = results["sections"][0]["outcome"]
    assert outcome.startswith("failed: RuntimeError: sum of all but the last: off by")


def test_loops_draw_the_same_as_what_is_written_out(tmp_path, monkeypatch):
    loops = []

    def counted(*arguments):
        loops.append(sizes.is_cpu())
        return draw_batch(*arguments)

    monkeypatch.setattr(gpu_programs, "draw_batch", counted)
    results = measured(tmp_path, "drawing")
    assert results["sections"][0]["outcome"] == "done"
    assert [figure["unit"] for figure in results["figures"]] == ["us"] * 4 + ["ms"]
    assert set(loops) == {False, True}


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
